"""A task file that is wrong: one line with the file's line, before anything is written."""

import pytest
from refusals import refusal
from task_registry import EXAMPLE, registries  # noqa: F401

from weft_rl.config.load import load_run_config
from weft_rl.pipeline.preflight import check_run
from weft_rl.pipeline.run import main


def line_of(text, part):
    return text[: text.index(part)].count("\n") + 1


@pytest.fixture
def refused(tmp_path):
    """The file with a text and the one line that a run on it ends with."""

    def run(text, *words):
        path, out = tmp_path / "sorting.py", tmp_path / "run"
        path.write_text(text)
        message = refusal(main, [f"task={path}", f"out={out}", "preset=tiny", *words])
        assert not out.exists()
        return path, message

    return run


@pytest.mark.parametrize(
    ("part", "wrong"),
    [
        ('digits = row.get("digits")', "digits = row.get("),
        ("import numpy as np", "import nowhere_to_be_found"),
        ("import numpy as np", "from numpy import nothing_like_it"),
        *(("TASK = Task(", f"{line}\nTASK = Task(") for line in ("1 / 0", "raise SystemExit(3)")),
        *(("f\"Sort: {fields['digits']}\"", prompt) for prompt in ("fields['digit']", "undefined")),
        ("rng, found =", "found = rng; rng ="),
        ("    return float(places(completion, digits=digits) == 1)", "    return 1 / 0"),
        ("answer = answer_text(completion) or", "answer = digits[100] or"),
    ],
)
def test_what_a_file_raises_is_one_line(part, wrong, refused):
    good = EXAMPLE.replace("places(completion, digits)", "places(completion, digits=digits)")
    assert part in good
    text = good.replace(part, wrong)
    path, message = refused(text)
    assert f"{path}:{line_of(text, wrong.splitlines()[0])}" in message


DRAWN = "return list(found.values())"
SCORE, TRAINING = "return float(places(completion, digits) == 1)", 'training={"places": places}'


@pytest.mark.parametrize(
    ("part", "wrong", "named"),
    [
        *(("TASK = Task(", "OTHER = Task(", "TASK"), ("TASK = Task(", "TASK = dict(", "dict")),
        ("fields=fields,", "fields={},", "fields"),
        ("prompt=lambda fields: f\"Sort: {fields['digits']}\"", "prompt=3", "prompt"),
        ("f\"Sort: {fields['digits']}\"", "None", "prompt"),
        *((TRAINING, f"training={part}", "training") for part in ("{}", "[places]")),
        (TRAINING, 'training={"places": 1}', "places"),
        ('evaluation={"exact": exact, "places": places}', "evaluation=None", "evaluation"),
        *((SCORE, f"return {value}", "exact") for value in ('"all"', "None")),
        *((DRAWN, f"return {value}", "generate") for value in ("None", "[1]", "[]")),
    ],
)
def test_parts_of_the_wrong_type_are_named(part, wrong, named, refused):
    assert part in EXAMPLE
    path, message = refused(EXAMPLE.replace(part, wrong))
    assert f"task={path}" in message
    assert named in message


def test_fields_that_a_file_lacks(tmp_path, refused):
    data = tmp_path / "data.jsonl"
    text = EXAMPLE.replace('digits = row.get("digits")', 'digits = row["digits"]')
    data.write_text('{"letters": "abc"}\n')
    path, message = refused(text, f"eval.data={data}")
    assert f"{data}:1" in message
    assert f"{path}:{line_of(text, 'row[')}" in message


def test_a_training_reward_may_fail_on_some_completions(tmp_path, refused):
    """A run counts such failures; an evaluation's score may not fail."""
    path, fails = tmp_path / "other.py", "lambda c, **_: len(c) / len(c)"
    path.write_text(EXAMPLE.replace(TRAINING, f'training={{"p": {fails}}}'))
    check_run(load_run_config([f"task={path}", "preset=tiny"], command="it"))
    assert "exact" in refused(EXAMPLE.replace('"exact": exact', f'"exact": {fails}'))[1]
