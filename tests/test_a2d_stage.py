"""Stage a2d: a causal model through adaptation, cold start and RL."""

import json
import shutil
from math import log
from pathlib import Path

import pytest
from causal_model import write_causal
from pipeline_runs import metrics
from torchrun import launch

from weft_rl.cli import execute
from weft_rl.config.load import load_run_config
from weft_rl.models.loading import load_model, load_tokenizer
from weft_rl.pipeline.run import main
from weft_rl.runs.checksums import write_checksums
from weft_rl.runs.jsonl import read_lines

pytestmark = pytest.mark.slow
WORDS = [
    *("preset=tiny", "device=cpu", "a2d.max_length=64", "a2d.max_steps=6", "a2d.eval_every=4"),
    *("a2d.eval_records=8", "a2d.save_steps=2", "a2d.logging_steps=2", "a2d.anneal_steps=4"),
    *("a2d.learning_rate=0.01", "a2d.warmup_steps=0", "cold_start.records=20"),
    *("cold_start.epochs=1", "cold_start.batch_size=4", "rl.num_prompts=2", "rl.max_steps=2"),
    *("rl.num_generations=2", "eval.num_records=3", "sampler.steps=4", "sampler.gen_length=8"),
    "sampler.block_length=8",
]

# A process of a node with its own cache.
NODE = """
import os, sys
from weft_rl.cli import execute
from weft_rl.pipeline.run import main
os.environ["WEFT_RL_CACHE"] += "/" + os.environ["RANK"]
sys.exit(execute("weft_rl.pipeline", main, sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A causal model and chats."""
    folder = tmp_path_factory.mktemp("given")
    write_causal(folder / "model", tie_word_embeddings=False)
    turns = [
        [{"role": "user", "content": f"{a}+{b}"}, {"role": "assistant", "content": f"{a + b}"}]
        for a in range(9)
        for b in range(9)
    ]
    rows = [json.dumps({"messages": chat}) + "\n" for chat in turns]
    (folder / "chats.jsonl").write_text("".join(rows))
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WEFT_RL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def words(given, *more):
    options = [*WORDS, f"model={given / 'model'}", f"a2d.data={given / 'chats.jsonl'}", *more]
    return [f"{key}={value}" for key, value in dict(word.split("=", 1) for word in options).items()]


def run(given, *more):
    return execute("weft_rl.pipeline", main, words(given, *more))


def results(out):
    return json.loads((out / "eval.json").read_text())


def test_the_whole_pipeline(given, tmp_path, capsys):
    out = tmp_path / "run"
    more = ["stages=[a2d,weft,rl]", "a2d.max_steps=60", "a2d.eval_every=20", f"out={out}"]
    assert run(given, *more, "eval.nelbo_records=5") == 0
    printed = capsys.readouterr().out
    assert "a2d: 81 records" in printed
    rows = [row for row in metrics(out) if row["stage"] == "a2d"]
    curve = {row["step"]: row for row in rows if "eval_nelbo" in row}
    assert list(curve) == [0, 20, 40, 60]
    assert [row["step"] for row in rows if "loss" in row] == [*range(2, 61, 2)]
    entry = results(out)["a2d"]["nelbo"]
    assert (entry["mean"], entry["se"], entry["n"]) == (
        *(curve[60][name] for name in ("eval_nelbo", "eval_nelbo_se")),
        8,
    )
    # an untrained model is uniform; then it knows which tokens are frequent
    vocabulary = json.loads((given / "model/config.json").read_text())["vocab_size"]
    assert entry["before"] == curve[0]["eval_nelbo"] == pytest.approx(log(vocabulary), abs=0.1)
    assert entry["mean"] < 3.5
    assert 1 < entry["unigram_entropy"] < 3
    assert set(results(out)) == {"a2d", "weft", "rl"}
    assert results(out)["weft"]["nelbo"]["n"] == 5
    assert [*results(out)["rl"]] == ["sudoku"]
    page = (out / "report.html").read_text()
    assert "adapted to diffusion" in page
    sentence = f"held-out records is {entry['mean']:.3f} nats per trained token"
    assert sentence in " ".join(page.split())
    assert "held-out NELBO (nats per token), a2d" in page
    folder = out / "checkpoints/a2d/step-60"
    tokenizer, model = load_tokenizer(folder), load_model(folder)
    assert model.config.model_type == "a2d-llama"
    assert tokenizer.mask_token_id == model.config.mask_token_id
    assert tokenizer.chat_template is not None


def test_a_cached_model_is_reused_in_other_runs(given, tmp_path, cache):
    first, second = (tmp_path / name for name in ("first", "second"))
    assert run(given, "stages=[a2d]", "eval.after_each=false", f"out={first}") == 0
    (entry,) = cache.glob("a2d-*")
    step = Path("checkpoints/a2d/step-6/model.safetensors")
    before = (entry / "model.safetensors").stat().st_mtime_ns
    more = ["stages=[a2d,sft]", "seed=3", "a2d.save_steps=3", f"out={second}"]
    assert run(given, *more) == 0
    assert (entry / "model.safetensors").stat().st_mtime_ns == before
    assert (first / step).read_bytes() == (second / step).read_bytes()
    assert results(first)["a2d"]["nelbo"] == results(second)["a2d"]["nelbo"]
    assert metrics(first) == [row for row in metrics(second) if row["stage"] == "a2d"]
    # other options are other models
    assert run(given, "stages=[a2d]", "a2d.seed=1", f"out={tmp_path / 'third'}") == 0
    assert len([*cache.glob("a2d-*")]) == 2
    assert (tmp_path / "third" / step).read_bytes() != (first / step).read_bytes()


def test_a_killed_run_ends_as_if_nothing_had_happened(given, tmp_path, cache):
    """In the middle of annealing, of a metric line, and of the evaluations."""
    whole, out = tmp_path / "whole", tmp_path / "run"
    more = ["stages=[a2d]", "eval.after_each=false", "reliability.keep_checkpoints=null"]
    assert run(given, *more, "a2d.save_steps=1", f"out={whole}") == 0
    shutil.copytree(whole, out)
    for name in ("eval.json", "stages.json", "report.html", "curves.png"):
        (out / name).unlink()
    for step in (4, 5, 6):
        shutil.rmtree(out / f"checkpoints/a2d/step-{step}")
    shutil.rmtree(cache)
    assert run(given, *more, "a2d.save_steps=1", f"out={out}") == 0
    assert metrics(out) == metrics(whole)
    assert (out / "eval.json").read_bytes() == (whole / "eval.json").read_bytes()
    for step in (4, 5, 6):
        weights = Path(f"checkpoints/a2d/step-{step}/model.safetensors")
        assert (out / weights).read_bytes() == (whole / weights).read_bytes(), step


def test_the_model_writes_its_own_data(given, tmp_path, cache, capsys):
    more = ["stages=[a2d]", "a2d.data=self", "a2d.records=64", "a2d.max_new_tokens=60"]
    more += ["a2d.max_length=200", "eval.after_each=false"]
    assert run(given, *more, f"out={tmp_path / 'run'}") == 0
    printed = capsys.readouterr().out
    (line,) = [line for line in printed.splitlines() if "answers of the model" in line]
    written = int(line.split(":")[1].split()[0])
    assert 0 < written < 64
    # beside the traces of the run's own data
    assert f"a2d: {written + 20} records" in printed
    (answers,) = cache.glob("answers-*.jsonl")
    assert [row["id"] for row in read_lines(answers)] == [*map(str, range(64))]
    before = answers.stat().st_mtime_ns
    assert run(given, *more, "a2d.max_steps=7", f"out={tmp_path / 'other'}") == 0
    assert answers.stat().st_mtime_ns == before
    assert not [*tmp_path.glob("*/.answers-*")]


def test_two_processes_adapt_together(given, tmp_path, cache):
    """Each with a cache of its own, as on two machines."""
    out, again = tmp_path / "run", tmp_path / "again"
    program = tmp_path / "program.py"
    program.write_text(NODE)
    more = ["stages=[a2d,sft]", "a2d.data=self", "a2d.records=40", "a2d.max_length=200"]
    arguments = words(given, *more, "a2d.max_new_tokens=40", "eval.nelbo_records=5")
    for folder in (out, again):
        status, complaints = launch(program, *arguments, f"out={folder}")
        assert status == 0, complaints[-3000:]
    rows = [row for row in metrics(out) if row["stage"] == "a2d"]
    assert [row["step"] for row in rows if "loss" in row] == [2, 4, 6]
    assert [row["step"] for row in rows if "eval_nelbo" in row] == [0, 4, 6]
    assert results(out)["a2d"]["nelbo"]["n"] == 8
    assert results(out)["sft"]["nelbo"]["n"] == 5
    # the second run found it in the cache
    assert len([*cache.glob("0/a2d-*")]) == 1
    step = Path("checkpoints/a2d/step-6/model.safetensors")
    assert (out / step).read_bytes() == (again / step).read_bytes()
    (answers,) = cache.glob("*/answers-*.jsonl")
    assert len([*read_lines(answers)]) == 40


def test_two_processes_learn_what_one_does(given, tmp_path):
    """With half of the batch each."""
    more = ["stages=[a2d]", "eval.after_each=false"]
    assert run(given, *more, "a2d.batch_size=2", f"out={tmp_path / 'one'}") == 0
    arguments = words(given, *more, "a2d.batch_size=1", f"out={tmp_path / 'two'}")
    status, complaints = launch("-m", "weft_rl.pipeline", *arguments)
    assert status == 0, complaints[-3000:]
    one, two = (results(tmp_path / name)["a2d"]["nelbo"] for name in ("one", "two"))
    assert two == pytest.approx(one, rel=1e-3)


def test_an_adapted_model_is_trained_on(given, tmp_path):
    """From a run's checkpoint, with other data; its shift is kept."""
    first = tmp_path / "first"
    more = ["stages=[a2d]", "eval.after_each=false"]
    assert run(given, *more, "a2d.logit_shift=true", f"out={first}") == 0
    start = f"model={first / 'checkpoints/a2d/step-6'}"
    texts = tmp_path / "texts.txt"
    texts.write_text("".join(f"Natalia sold {n} clips to {n + 1} friends. " for n in range(60)))
    data = f"a2d.data={texts}"
    assert run(given, *more, start, data, "a2d.logit_shift=true", f"out={tmp_path / 'more'}") == 0
    assert load_model(tmp_path / "more/checkpoints/a2d/step-6").config.logit_shift is True
    assert run(given, *more, start, data, "a2d.logit_shift=false", f"out={tmp_path / 'x'}") == 2
    assert run(given, *more, start, "a2d.data=self", f"out={tmp_path / 'x'}") == 2
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ("stages=[weft,rl]", "a2d"),
        ("stages=[a2d] model=tiny", "stages"),
        ("stages=[a2d] model={llada}", "is a llada diffusion model"),
        ("stages=[a2d] model={bare}", "tokenizer"),
        ("stages=[a2d] model={plain}", "chat template"),
        ("stages=[a2d] a2d.max_length=257", "a2d.max_length=257"),
        ("stages=[a2d] a2d.eval_records=81", "a2d.eval_records=81"),
        # at most 4 answers and 20 traces
        ("stages=[a2d] a2d.data=self a2d.records=4 a2d.eval_records=24", "a2d.eval_records=24"),
        ("stages=[a2d,weft] eval.nelbo_records=20", "eval.nelbo_records=20"),
    ],
)
def test_refusals(more, key, given, tmp_path, capsys):
    from tiny_model import write_model

    places = {name: tmp_path / name for name in ("llada", "bare", "plain")}
    write_model(places["llada"])
    for name in ("bare", "plain"):
        shutil.copytree(given / "model", places[name])
    (places["plain"] / "chat_template.jinja").unlink()
    for path in places["bare"].glob("*token*"):
        path.unlink()
    capsys.readouterr()  # progress bars of write_model
    out = tmp_path / "run"
    assert run(given, *more.format_map(places).split(), f"out={out}") == 2
    message = capsys.readouterr().err
    assert key in message
    assert message.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("damage", "key"),
    [("weights", "model.safetensors does not match"), ("settings", "cannot load the model")],
)
def test_a_damaged_model_does_not_answer(damage, key, given, tmp_path, capsys):
    model = tmp_path / "model"
    shutil.copytree(given / "model", model)
    if damage == "settings":
        (model / "generation_config.json").write_text('{"max_new_tokens": -1}')
    write_checksums(model)
    if damage == "weights":
        path = model / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-1] + b"!")
    out = tmp_path / "run"
    words = ["stages=[a2d]", "a2d.data=self", "a2d.records=4", f"model={model}", f"out={out}"]
    assert run(given, *words) == 2
    printed, message = capsys.readouterr()
    assert key in message
    assert "model answers" not in printed
    assert not [*out.glob(".answers-*/*")]


def test_options_of_the_same_model():
    """Its seed is its own, so arms and seeds of a comparison share it."""
    config = load_run_config(["model=smollm2_135m", "stages=[weft]"], command="it")
    assert config.in_order == ["a2d", "weft"]
    assert config.trained == ["weft"]
    folder = load_run_config(["model=some/folder", "stages=[weft,a2d]"], command="it")
    assert folder.in_order == ["a2d", "weft"]


def test_a_comparison_adapts_the_model_once(given, tmp_path, cache, monkeypatch):
    """By name: the stage runs by itself, before all runs of the comparison."""
    hub = tmp_path / "hub" / "models--HuggingFaceTB--SmolLM2-135M-Instruct"
    shutil.copytree(given / "model", hub / "snapshots" / "0")
    (hub / "refs").mkdir()
    (hub / "refs" / "main").write_text("0")
    monkeypatch.setenv("HF_HUB_CACHE", str(hub.parent))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    out = tmp_path / "comparison"
    arguments = words(given, "model=smollm2_135m", "arms=[sft,weft]", "seeds=[0,1]", f"out={out}")
    status, complaints = launch("-m", "weft_rl.compare", *arguments, processes=1)
    assert status == 0, complaints[-3000:]
    assert len([*cache.glob("a2d-*")]) == 1
    weights = [*out.glob("*/checkpoints/a2d/step-6/model.safetensors")]
    assert len(weights) == 5  # of four runs and the first one
    assert len({path.read_bytes() for path in weights}) == 1
    comparison = json.loads((out / "comparison.json").read_text())
    assert set(comparison["results"]["weft"]) == {"base", "cold_start", "rl"}
