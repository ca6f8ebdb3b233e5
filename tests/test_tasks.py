"""Where records come from, the wording of each task, and the task of examples/own_task.py."""

import io
import json
from contextlib import redirect_stdout
from pathlib import Path

import datasets
import pytest
from refusals import refusal
from run_folders import read_lines
from task_registry import EXAMPLE, registries  # noqa: F401

from weft_rl.cli import execute
from weft_rl.data.prompts import PREFILL
from weft_rl.data.tasks import (
    held_out_records,
    hub_name,
    load_records,
    load_task,
    task_prompt,
    training_records,
)
from weft_rl.errors import UserError
from weft_rl.models import LLaDAConfig
from weft_rl.models.loading import fresh_model
from weft_rl.models.toy import BaseConfig, tiny_config, tiny_tokenizer
from weft_rl.pipeline.run import main
from weft_rl.rewards.registry import REWARDS, training
from weft_rl.score import main as score_command

ROOT = Path(__file__).parents[1]
FIXTURES = Path(__file__).parent / "fixtures"
GSM8K = {"question": "How many?", "answer": "#### 2"}
MATH = {"problem": "Find $x$.", "answer": "2"}
FORMAT = (
    "Respond in the following format:\n<reasoning>\nYour reasoning here\n</reasoning>\n"
    "<answer>\n\\boxed{...}\n</answer>"
)


FEW = [
    *("stages=[rl]", "base.max_steps=3", "base.batch_size=8", "base.examples=40"),
    *("rl.num_prompts=2", "rl.num_generations=2", "rl.max_steps=2", "rl.num_iterations=1"),
    "device=cpu",
]


@pytest.fixture
def sorting(tmp_path):
    """The example, as a file of a user."""
    path = tmp_path / "sorting.py"
    path.write_text(EXAMPLE)
    return str(path)


def rescored(task, path):
    with redirect_stdout(io.StringIO()) as printed:
        assert score_command([f"task={task}", f"generations={path}"]) == 0
    return json.loads(printed.getvalue())


def test_the_example_task_by_hand(sorting):
    load_task(sorting)
    places, exact = training(sorting)["places"].reward, REWARDS[sorting].evaluation["exact"]
    # the last two have other digits, and no tag
    for answer, share in (("1234", 1), ("1243", 0.5), ("1111", 0), (None, 0)):
        text = f"<answer>{answer}</answer>" if answer else "1234"
        assert places(text, digits="3142") == share
        assert exact(text, digits="3142") == (share == 1)
    train, test = training_records(sorting, 50, 0), held_out_records(sorting, 50, None)
    assert not {r.fields["digits"] for r in train} & {r.fields["digits"] for r in test}
    assert task_prompt("tiny", sorting, train[0].fields) == f"Sort: {train[0].fields['digits']}"


@pytest.mark.slow
def test_the_example_task_end_to_end(sorting, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WEFT_RL_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "data.jsonl"
    # the last is the first once more
    data.write_text("".join(f'{{"digits": "{text}"}}\n' for text in ("3142", "905", "3142")))
    out = tmp_path / "run"
    assert main([*FEW, f"task={sorting}", f"eval.data={data}", f"out={out}"]) == 0
    line, *_ = [line for line in capsys.readouterr().out.splitlines() if f"{data}:3" in line]
    assert f"{data}:1" in line
    entry = json.loads((out / "eval.json").read_text())["rl"][sorting]
    assert (entry["n"], entry["undecided_answers"]) == (2, 0)
    again = rescored(sorting, out / "completions" / "eval-rl.jsonl")
    assert (again["n"], again["score"]) == (2, entry["score"])
    assert again["scores"]["places"] == entry["places"]["score"]
    assert rescored(sorting, out / "completions" / "rl.jsonl")["n"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "name", "value"),
    [('training={"places": places', "places", "2.0"), ('"exact": exact', "exact", "7.5")],
)
def test_a_reward_outside_its_range_ends_the_run_with_its_name(
    sorting, tmp_path, monkeypatch, capsys, part, name, value
):
    """Of training at its first rollout, of evaluation at its first completion."""
    monkeypatch.setenv("WEFT_RL_CACHE", str(tmp_path / "cache"))
    wrong = f"{part.removesuffix(name)}lambda *_, **__: {value}"
    Path(sorting).write_text(EXAMPLE.replace(part, wrong))
    options = ["eval.num_records=2", f"task={sorting}", f"out={tmp_path / 'run'}"]
    assert execute("weft_rl.pipeline", main, [*FEW, *options]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert (name in line, value in line) == (True, True)


@pytest.mark.parametrize("preset", ["d1", "d1_strict"])
def test_d1_has_no_rewards_of_other_tasks(sorting, preset):
    words = ["stages=[rl]", f"task={sorting}", f"rewards={preset}", "device=cpu"]
    assert f"rewards={preset}: " in refusal(main, words)


@pytest.fixture(scope="module")
def rotary(tmp_path_factory):
    """A small model with positions for long prompts."""
    folder = tmp_path_factory.mktemp("model")
    small = tiny_config(BaseConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2))
    options = small.to_dict() | {"rope": True, "max_position_embeddings": 4096}
    fresh_model(LLaDAConfig(**options), 0).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["d1", "d1_strict"])
def test_rl_is_paid_the_weighted_sum(rotary, tmp_path, preset):
    data = FIXTURES / "gsm8k_records.jsonl"
    arguments = [
        *("stages=[rl]", f"model={rotary}", "task=gsm8k", "prompt_style=d1", f"rewards={preset}"),
        *(f"rl.rollout.data={data}", f"eval.data={data}", "eval.after_each=false", "device=cpu"),
        *("rl.num_prompts=2", "rl.num_generations=4", "rl.max_steps=1", "rl.kl_coef=0"),
        *("rl.optimizer.micro_batch_size=null", "rl.lora.r=0", "sampler.gen_length=32"),
        "sampler.steps=8",
    ]
    assert main([*arguments, f"out={tmp_path / 'run'}"]) == 0
    rows = read_lines(tmp_path / "run" / "metrics.jsonl")
    row = next(row for row in rows if "reward" in row)
    terms = training("gsm8k", preset)
    paid = sum(term.weight * row[f"rewards/{name}"] for name, term in terms.items())
    assert row["reward"] == pytest.approx(paid)
    assert row["reward"] > 0 or preset == "d1_strict"  # random tokens hold a tag now and then


def test_tasks_and_data_that_do_not_exist(tmp_path):
    path = tmp_path / "mine.py"
    assert refusal(load_task, str(path)).startswith(f"task={path}: ")
    for words in (["stages=[rl]", "task=gsm8k"], ["stages=[weft,rl]", "task=math500"]):
        assert refusal(main, words).startswith("rl.rollout.data=null: ")
    assert "task=sudoku" in refusal(held_out_records, "gsm8k", 5, "d1")


EXPERT = (
    "You are a math expert. You will be given a question to solve. Solve it step by step. "
    "Wrap the final answer in a \\boxed{}."
)


def test_prompts_are_d1s():
    assert task_prompt("d1_eval", "gsm8k", GSM8K) == f"{EXPERT} \n{FORMAT}\n\nHow many?"
    assert task_prompt("d1_eval", "math500", MATH) == f'{EXPERT}\n{FORMAT}" \n\n\nFind $x$.'
    prompt = task_prompt("d1_eval", "countdown", {"numbers": [1, 2, 3], "target": 6})
    assert prompt.startswith("Using only the provided numbers, create an arithmetic expression ")
    assert prompt.endswith(f"\\boxed{{a + b * c}}{FORMAT}\n\nNumbers: [1, 2, 3]\nTarget: 6")
    assert PREFILL["d1_eval"] == "<reasoning>"
    with pytest.raises(UserError, match=r"prompt_style=tiny: .*task=gsm8k.*d1"):
        task_prompt("tiny", "gsm8k", GSM8K)
    # those of training
    form = FORMAT.replace("Your reasoning here", "...").replace("\\boxed{...}", "...")
    assert task_prompt("d1", "gsm8k", GSM8K) == f"\n{form}\n\n\nHow many?"
    assert task_prompt("d1", "math500", MATH) == f"\n{form}\n\n\n{EXPERT} \n\nFind $x$."


def test_d1s_puzzles_are_those_of_its_stored_generations():
    rows = read_lines(FIXTURES / "sudoku_128.jsonl")
    stored = [row["question"].strip()[-16:] for row in rows]
    puzzles = [record.fields["puzzle"] for record in held_out_records("sudoku", None, "d1")]
    ranks = 7  # whose shares the stored file holds one after the other
    assert [puzzle for rank in range(ranks) for puzzle in puzzles[rank::ranks]] == stored


def test_a_data_set_of_the_hub(monkeypatch):
    assert hub_name("gsm8k", "published") == hub_name("gsm8k", None) == "openai/gsm8k:main"
    assert (hub_name("sudoku", "published"), hub_name("math500", "a/MATH")) == (None, "a/MATH")
    for data in ("./a/b", "/a/b", "a/b.jsonl", "a.jsonl", "a/b/c", "a/b.parquet", "a/b.CSV.gz"):
        assert hub_name("math500", data) is None
    asked = []

    def load_dataset(*arguments, split):
        asked.append((*arguments, split))
        if arguments[0] == "owner/none":
            raise ValueError(f"Unknown split {split}")
        return datasets.Dataset.from_list([GSM8K])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    (record,) = held_out_records("gsm8k", None, None)
    assert record.fields == GSM8K
    assert [record] == load_records("gsm8k", "published", split="train")
    load_records("gsm8k", "owner/set")
    published = ("openai/gsm8k", "main")
    assert asked == [(*published, "test"), (*published, "train"), ("owner/set", None, "test")]
    assert refusal(load_records, "gsm8k", "owner/none").startswith("data=owner/none: ")
