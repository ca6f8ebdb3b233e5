"""A task file that is wrong: one line with the file's line, before anything is written."""

import pytest
from task_registry import EXAMPLE, restored_registries

from weft_rl.cli import execute
from weft_rl.config.load import load_run_config
from weft_rl.errors import UserError
from weft_rl.pipeline.preflight import check_run
from weft_rl.pipeline.run import main


@pytest.fixture(autouse=True)
def registries():
    with restored_registries():
        yield


def line_of(text, part):
    return text[: text.index(part)].count("\n") + 1


@pytest.mark.parametrize(
    ("part", "wrong"),
    [
        ('digits = row.get("digits")', "digits = row.get("),
        ("import numpy as np", "import nowhere_to_be_found"),
        ("import numpy as np", "from numpy import nothing_like_it"),
        ("TASK = Task(", "1 / 0\nTASK = Task("),
        ("TASK = Task(", "raise SystemExit(3)\nTASK = Task("),
        ("f\"Sort: {fields['digits']}\"", "fields['digit']"),
        *(("f\"Sort: {fields['digits']}\"", "undefined"), ("rng, found =", "found = rng; rng =")),
        ("    return float(places(completion, digits=digits) == 1)", "    return 1 / 0"),
        ("answer = answer_text(completion) or", "answer = digits[100] or"),
    ],
)
def test_what_a_file_raises_is_one_line(part, wrong, tmp_path, capsys):
    good = EXAMPLE.replace(
        "places(completion, digits) == 1", "places(completion, digits=digits) == 1"
    )
    assert part in good
    text = good.replace(part, wrong)
    path, out = tmp_path / "sorting.py", tmp_path / "run"
    path.write_text(text)
    assert execute("it", main, [f"task={path}", f"out={out}", "preset=tiny"]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert f"{path}:{line_of(text, wrong.splitlines()[0])}" in message
    assert not out.exists()


@pytest.mark.parametrize(
    ("part", "wrong", "named"),
    [
        *(("TASK = Task(", "OTHER = Task(", "no TASK"), ("TASK = Task(", "TASK = dict(", "dict")),
        ("fields=fields,", "fields={},", "fields"),
        ("prompt=lambda fields: f\"Sort: {fields['digits']}\"", "prompt=3", "prompt"),
        ("f\"Sort: {fields['digits']}\"", "None", "prompt"),
        ('training={"places": places}', "training={}", "training"),
        ('training={"places": places}', "training=[places]", "training"),
        ('training={"places": places}', 'training={"places": 1}', "places"),
        ('evaluation={"exact": exact, "places": places}', "evaluation=None", "evaluation"),
        ("return float(places(completion, digits) == 1)", 'return "all"', "exact"),
        ("return float(places(completion, digits) == 1)", "return None", "exact"),
        ("return list(found.values())", "return None", "generate"),
        ("return list(found.values())", "return [1]", "generate"),
        ("return list(found.values())", "return []", "generate"),
    ],
)
def test_parts_of_the_wrong_type_are_named(part, wrong, named, tmp_path, capsys):
    assert part in EXAMPLE
    path, out = tmp_path / "sorting.py", tmp_path / "run"
    path.write_text(EXAMPLE.replace(part, wrong))
    assert execute("it", main, [f"task={path}", f"out={out}", "preset=tiny"]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert f"task={path}" in message
    assert named in message
    assert not out.exists()


def test_fields_that_a_file_lacks(tmp_path, capsys):
    path, data = tmp_path / "sorting.py", tmp_path / "data.jsonl"
    text = EXAMPLE.replace('digits = row.get("digits")', 'digits = row["digits"]')
    path.write_text(text)
    data.write_text('{"letters": "abc"}\n')
    words = [f"task={path}", f"out={tmp_path / 'run'}", "preset=tiny", f"eval.data={data}"]
    assert execute("it", main, words) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert f"{data}:1" in message
    assert f"{path}:{line_of(text, 'row[')}" in message


def test_a_training_reward_may_fail_on_some_completions(tmp_path, monkeypatch):
    """A run counts such failures; an evaluation's score may not fail."""
    path = tmp_path / "sorting.py"
    path.write_text(
        EXAMPLE.replace(
            'training={"places": places}', 'training={"p": lambda c, **_: len(c) / len(c)}'
        )
    )
    check_run(load_run_config([f"task={path}", "preset=tiny"], command="it"))
    other = tmp_path / "scored.py"
    other.write_text(EXAMPLE.replace('"exact": exact', '"exact": lambda c, **_: len(c) / len(c)'))
    with pytest.raises(UserError, match="exact"):
        check_run(load_run_config([f"task={other}", "preset=tiny"], command="it"))
