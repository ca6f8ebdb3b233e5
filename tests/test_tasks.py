"""Where records come from, the wording of each task, and the task that docs/tasks.md adds."""

import io
import json
import re
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from weft_rl.cli import execute
from weft_rl.data.hub import hub_records
from weft_rl.data.prompts import PREFILL, PROMPTS, task_prompt
from weft_rl.data.records import FIELDS, load_records
from weft_rl.data.tasks import GENERATORS, held_out_records, hub_name, load_task, training_records
from weft_rl.errors import UserError
from weft_rl.models.configuration_llada import LLaDAConfig
from weft_rl.models.loading import fresh_model
from weft_rl.models.toy import BaseConfig, tiny_config, tiny_tokenizer
from weft_rl.pipeline.run import main
from weft_rl.rewards.registry import REWARDS, training
from weft_rl.score import main as score_command

ROOT = Path(__file__).parents[1]
FIXTURES = Path(__file__).parent / "fixtures"
PAGE = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")
GSM8K = {"question": "How many?", "answer": "#### 2"}
MATH = {"problem": "Find $x$.", "answer": "2"}
FORMAT = (
    "Respond in the following format:\n<reasoning>\nYour reasoning here\n</reasoning>\n"
    "<answer>\n\\boxed{...}\n</answer>"
)


REGISTRIES = (REWARDS, FIELDS, GENERATORS, PROMPTS)


@pytest.fixture(autouse=True)
def registries():
    """A task that a test adds is taken away again."""
    kept = [(table, dict(table)) for table in REGISTRIES]
    yield
    for table, content in kept:
        table.clear()
        table.update(content)


@pytest.fixture
def sorting(tmp_path):
    """The example of the page, as the file that a reader would make of it."""
    path = tmp_path / "sorting.py"
    path.write_text(re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1])
    return str(path)


def rescored(task, path):
    with redirect_stdout(io.StringIO()) as printed:
        assert score_command([f"task={task}", f"generations={path}"]) == 0
    return json.loads(printed.getvalue())


def test_the_example_task_by_hand(sorting):
    load_task(sorting)
    places, exact = training(sorting)["places"].reward, REWARDS[sorting].evaluation["exact"]
    assert places("<answer>1234</answer>", digits="3142") == 1
    assert exact("<answer>1234</answer>", digits="3142") == 1
    assert places("<answer>1243</answer>", digits="3142") == 0.5
    assert exact("<answer>1243</answer>", digits="3142") == 0
    assert places("<answer>1111</answer>", digits="3142") == 0  # other digits
    assert places("1234", digits="3142") == 0
    train, test = training_records(sorting, 50, 0), held_out_records(sorting, 50, None)
    assert not {r.fields["digits"] for r in train} & {r.fields["digits"] for r in test}
    assert task_prompt("tiny", sorting, train[0].fields) == f"Sort: {train[0].fields['digits']}"


def test_the_example_task_end_to_end(sorting, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WEFT_RL_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "data.jsonl"
    # the last is the first once more
    data.write_text("".join(f'{{"digits": "{text}"}}\n' for text in ("3142", "905", "3142")))
    options = ["base.max_steps=3", "base.batch_size=8", "base.examples=40", "rl.num_prompts=2"]
    options += ["rl.num_generations=2", "rl.max_steps=2", "rl.num_iterations=1", "device=cpu"]
    out = tmp_path / "run"
    assert (
        main(["stages=[rl]", f"task={sorting}", f"eval.data={data}", f"out={out}", *options]) == 0
    )
    line = f"{data}:3: has the content of the record at {data}:1"
    assert line in capsys.readouterr().out
    entry = json.loads((out / "eval.json").read_text())["rl"][sorting]
    assert (entry["n"], entry["undecided_answers"]) == (2, 0)
    again = rescored(sorting, out / "completions" / "eval-rl.jsonl")
    assert (again["n"], again["score"]) == (2, entry["score"])
    assert again["scores"]["places"] == entry["places"]["score"]
    assert rescored(sorting, out / "completions" / "rl.jsonl")["n"] > 0


@pytest.mark.parametrize("names", [("places",), ("exact",)])
def test_a_reward_outside_its_range_ends_the_run_with_its_name(
    sorting, tmp_path, monkeypatch, capsys, names
):
    """Of training at its first rollout, of evaluation at its first completion."""
    monkeypatch.setenv("WEFT_RL_CACHE", str(tmp_path / "cache"))
    text = Path(sorting).read_text()
    if names == ("places",):
        text = text.replace(
            'training={"places": places}', 'training={"places": lambda *_, **__: 2.0}'
        )
    else:
        text = text.replace('"exact": exact', '"exact": lambda *_, **__: 7.5')
    Path(sorting).write_text(text)
    options = ["base.max_steps=3", "base.batch_size=8", "base.examples=40", "rl.num_prompts=2"]
    options += ["rl.num_generations=2", "rl.max_steps=2", "rl.num_iterations=1", "device=cpu"]
    options += ["eval.num_records=2", f"task={sorting}", f"out={tmp_path / 'run'}"]
    assert execute("weft_rl.pipeline", main, ["stages=[rl]", *options]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert names[0] in line
    assert ("2.0" if names == ("places",) else "7.5") in line


@pytest.mark.parametrize("preset", ["d1", "d1_strict"])
def test_d1_has_no_rewards_of_other_tasks(sorting, tmp_path, capsys, preset):
    options = [f"task={sorting}", f"rewards={preset}", f"out={tmp_path / 'run'}", "device=cpu"]
    assert execute("weft_rl.pipeline", main, ["stages=[rl]", *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"rewards={preset}: " in line
    assert "rewards=plain" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("preset", ["d1", "d1_strict"])
def test_rl_is_paid_the_weighted_sum(tmp_path, preset):
    folder = tmp_path / "model"
    small = tiny_config(BaseConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2))
    options = small.to_dict() | {"rope": True, "max_position_embeddings": 4096}
    fresh_model(LLaDAConfig(**options), 0).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    data = FIXTURES / "gsm8k_records.jsonl"
    arguments = ["stages=[rl]", f"model={folder}", "task=gsm8k", "prompt_style=d1"]
    arguments += [f"rewards={preset}"]
    arguments += [
        f"rl.rollout.data={data}",
        f"eval.data={data}",
        "eval.after_each=false",
        "device=cpu",
    ]
    arguments += ["rl.num_prompts=2", "rl.num_generations=4", "rl.max_steps=2", "rl.kl_coef=0"]
    arguments += ["rl.optimizer.micro_batch_size=null", "rl.lora.r=0", "sampler.gen_length=32"]
    arguments += ["sampler.steps=8", "rl.save_steps=2"]
    assert main([*arguments, f"out={tmp_path / 'run'}"]) == 0
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    row = next(row for row in map(json.loads, lines) if "reward" in row)
    terms = training("gsm8k", preset)
    paid = sum(term.weight * row[f"rewards/{name}"] for name, term in terms.items())
    assert row["reward"] == pytest.approx(paid)
    if preset == "d1":
        assert row["reward"] > 0  # random tokens hold a tag now and then


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "has no TASK"),
        ("TASK = 5", "TASK is of type int"),
        (None, "or a Python file with a TASK"),
    ],
)
def test_files_that_are_no_task(tmp_path, text, message):
    path = tmp_path / "mine.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=message):
        load_task(str(path))


def test_the_page_has_the_policies_that_the_command_finds(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import trivial_policies

    for task in ("sudoku", "countdown"):
        for row in trivial_policies.rows(task, "published"):
            assert row in PAGE
    assert (
        len(re.findall(r"^\| (?:gsm8k|math500) \| .* \| (?:1319|500) \|", PAGE, re.MULTILINE)) == 4
    )
    sys.modules.pop("trivial_policies")


def test_prompts_of_the_evaluation_are_d1s():
    expert = (
        "You are a math expert. You will be given a question to solve. Solve it step by step. "
        "Wrap the final answer in a \\boxed{}."
    )
    assert task_prompt("d1_eval", "gsm8k", GSM8K) == f"{expert} \n{FORMAT}\n\nHow many?"
    assert task_prompt("d1_eval", "math500", MATH) == f'{expert}\n{FORMAT}" \n\n\nFind $x$.'
    prompt = task_prompt("d1_eval", "countdown", {"numbers": [1, 2, 3], "target": 6})
    assert prompt.startswith("Using only the provided numbers, create an arithmetic expression ")
    assert prompt.endswith(f"\\boxed{{a + b * c}}{FORMAT}\n\nNumbers: [1, 2, 3]\nTarget: 6")
    assert PREFILL["d1_eval"] == "<reasoning>"
    with pytest.raises(UserError, match="prompt_style=tiny: has no prompt for task=gsm8k; use d1"):
        task_prompt("tiny", "gsm8k", GSM8K)


def test_prompts_of_training_are_d1s():
    form = FORMAT.replace("Your reasoning here", "...").replace("\\boxed{...}", "...")
    form = f"\n{form}\n"
    assert task_prompt("d1", "gsm8k", GSM8K) == f"{form}\n\nHow many?"
    assert task_prompt("d1", "math500", MATH) == (
        f"{form}\n\nYou are a math expert. You will be given a question to solve. Solve it step by "
        "step. Wrap the final answer in a \\boxed{}. \n\nFind $x$."
    )


def test_d1s_puzzles_are_those_of_its_stored_generations():
    lines = (FIXTURES / "sudoku_128.jsonl").read_text(encoding="utf-8").splitlines()
    stored = [json.loads(line)["question"].strip()[-16:] for line in lines]
    puzzles = [record.fields["puzzle"] for record in held_out_records("sudoku", None, "d1")]
    ranks = 7  # whose shares the stored file holds one after the other
    assert [puzzle for rank in range(ranks) for puzzle in puzzles[rank::ranks]] == stored


@pytest.mark.parametrize(
    ("task", "row", "fields"),
    [
        ("gsm8k", {"Question": "q", "Answer": "so\n#### 1,000"}, ("q", "so\n#### 1,000")),
        ("math500", {"problem": "p", "answer": r"\pi"}, ("p", r"\pi")),
        (
            "math500",
            {"problem": "p", "solution": r"so \boxed{\frac{1}{2}}."},
            ("p", r"\frac{1}{2}"),
        ),
    ],
)
def test_records_of_files(tmp_path, task, row, fields):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(row))
    (record,) = load_records(task, str(path))
    assert tuple(record.fields.values()) == fields


@pytest.mark.parametrize(
    ("task", "row", "message"),
    [
        ("gsm8k", {"question": "q", "answer": "many"}, "answer must end in #### and a number"),
        ("gsm8k", {"question": " ", "answer": "#### 1"}, "question must be a text that is not"),
        ("gsm8k", {"answer": "#### 1"}, "question must be a text that is not empty, got None"),
        ("math500", {"problem": "p", "solution": "none"}, r"answer \(or a solution with a"),
    ],
)
def test_records_that_are_broken(tmp_path, task, row, message):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(row))
    with pytest.raises(UserError, match=rf"a\.jsonl:1: {message}"):
        load_records(task, str(path))


def test_which_data_is_the_hubs():
    assert hub_name("gsm8k", "published") == hub_name("gsm8k", None) == "openai/gsm8k:main"
    assert hub_name("sudoku", "published") is None
    assert hub_name("math500", "someone/MATH") == "someone/MATH"
    for data in ("./a/b", "/a/b", "a/b.jsonl", "a.jsonl", "a/b/c", "a/b.parquet", "a/b.CSV.gz"):
        assert hub_name("math500", data) is None


def test_a_data_set_of_the_hub(tmp_path, monkeypatch):
    # a folder is what `datasets` takes in place of a name of the hub
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    folder = tmp_path / "owner" / "set"
    folder.mkdir(parents=True)
    (folder / "test.jsonl").write_text(json.dumps(GSM8K))
    monkeypatch.chdir(tmp_path)
    (record,) = hub_records("gsm8k", "owner/set")
    assert record.fields == GSM8K
    with pytest.raises(UserError, match="data=owner/set: split train cannot be loaded"):
        hub_records("gsm8k", "owner/set", "train")


def test_tasks_without_generated_records():
    with pytest.raises(
        UserError, match=r"rl\.rollout\.data=null: task=gsm8k has no generated records"
    ):
        main(["stages=[rl]", "task=gsm8k"])
    with pytest.raises(UserError, match=r"eval\.data=d1: is for task=sudoku"):
        held_out_records("gsm8k", 5, "d1")
