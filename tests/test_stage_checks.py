"""Whatever a stage would refuse is refused before the first stage begins."""

import json
import shutil
from itertools import islice

import pytest

from weft_rl.cli import execute
from weft_rl.config.fields import leaves
from weft_rl.config.load import load_run_config
from weft_rl.config.schema import RunConfig
from weft_rl.errors import UserError
from weft_rl.pipeline import run as pipeline
from weft_rl.runs.atomic_io import atomic_rename
from weft_rl.runs.folder import checkpoint_path

QUICK = ["base.max_steps=1", "base.batch_size=4", "base.examples=8", "cold_start.records=4"]
QUICK += ["cold_start.epochs=1", "cold_start.batch_size=4", "rl.num_prompts=2", "rl.max_steps=1"]
QUICK += ["rl.num_generations=2", "rl.num_iterations=1", "eval.num_records=2", "sampler.steps=2"]

# Values that the options' own rules let through, and that some stage may not.
NUMBERS = ["1", "257"]
TEXTS = ["./nowhere", "nowhere.jsonl", "{empty}", "{text}", "{folder}", "{own}", "d1"]
TEXTS += ["published", "gsm8k", "countdown", "tiny"]
LISTS = ["[nope]", "[0.5,0.5]", "[rho1,rl]", "[sft,rl,eval]", "[eval]", "[q_proj,nope]", "[1]"]
# Sizes with which a stage would take long, not refuse.
LARGE = {"base.", "cold_start.records", "rl.num_prompts", "rl.num_generations"}
# What an evaluation depends on; the others are run without one, which is faster.
EVALUATED = ("eval", "sampler", "task", "prompt_style", "stages")


def status_of_stages(words, monkeypatch, tmp_path):
    """How a run ends whose stages take no time, and whether any of them had begun by then."""
    begun = []
    run = pipeline.run_pipeline

    def running(config, folder, argv):
        begun.append(folder)
        return run(config, folder, argv)

    def trained(trainer, context):
        step = checkpoint_path(context.run, context.stage, 1)
        scratch = context.scratch / "new"
        trainer.accelerator.unwrap_model(trainer.model).save_pretrained(scratch)
        trainer.processing_class.save_pretrained(scratch)
        atomic_rename(scratch, step)
        return step

    for stage in ("pretrain", "cold_start", "rl"):
        monkeypatch.setattr(f"weft_rl.stages.{stage}.train", trained)
    monkeypatch.setattr(pipeline, "run_pipeline", running)
    monkeypatch.setattr(pipeline, "plot_run", lambda *_: None)
    monkeypatch.setattr(pipeline, "write_report", lambda folder: folder)
    out = tmp_path / "run"
    shutil.rmtree(out, ignore_errors=True)
    return execute("it", pipeline.main, [*words, f"out={out}"]), bool(begun), out


def cases():
    """Each option with a fourth of its values, at least one."""
    for number, (key, leaf) in enumerate(leaves(RunConfig).items()):
        kind = str(leaf.kind)
        values = LISTS if "list" in kind else NUMBERS if "int" in kind or "float" in kind else []
        values = values or (TEXTS if "str" in kind and "Literal" not in kind else [])
        if "Literal" in kind:
            values = kind.split("'")[1::2]
        large = any(key.startswith(name) for name in LARGE)
        values = NUMBERS[:1] if large and values is NUMBERS else values
        for value in values[number % min(4, len(values) or 1) :: 4]:
            if key not in ("out", "resume", "device"):
                yield f"{key}={value}"


def accepted(words):
    try:
        load_run_config(words, command="it")
    except UserError:
        return False
    return True


@pytest.fixture
def files(tmp_path):
    contents = {"empty.jsonl": "", "text.csv": "a,b\n1,2\n", "own.py": "TASK = 1\n"}
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
    (tmp_path / "folder").mkdir()
    return {name.split(".")[0]: str(tmp_path / name) for name in (*contents, "folder")}


def refusal(words):
    """What the checks before a run say; empty where they let it through."""
    config = load_run_config(words, command="it")
    try:
        pipeline.check_run(config)
        pipeline.check_stages(config)
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.slow
@pytest.mark.parametrize("part", range(3))
def test_no_stage_refuses_what_the_checks_let_through(part, files, tmp_path, monkeypatch, capsys):
    """Of the values that the checks let through every sixteenth is run."""
    monkeypatch.setenv("WEFT_RL_CACHE", str(tmp_path / "cache"))
    refused = passed = 0
    for case in islice(cases(), part, None, 3):
        key, _, value = case.partition("=")
        own = [word for word in ["stages=[sft,rl]", *QUICK] if not word.startswith(f"{key}=")]
        if not key.startswith(EVALUATED):
            own.append("eval.after_each=false")
        words = [*own, f"{key}={value.format_map(files) if '{' in value else value}"]
        if not accepted(words):
            continue
        if refusal([*words, f"out={tmp_path / 'new'}"]):
            refused += 1
            continue
        passed += 1
        if passed % 16 == part:
            status, begun, _ = status_of_stages(words, monkeypatch, tmp_path)
            assert (status, begun) == (0, True), (case, capsys.readouterr().err)
    assert passed > 5
    assert refused > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "key"),
    [
        *((word, word) for word in ("eval.preset=paper", "eval.gen_length=512", "task=gsm8k")),
        ("sampler.gen_length=512 sampler.block_length=512", "sampler.gen_length=512"),
        ("cold_start.data.max_length=8", "data=tiny"),
        ("rl.rollout.reward_weights=[1,2]", "rl.rollout.reward_weights"),
        ("rl.lora.r=2 rl.lora.targets=[nope]", "rl.lora.targets"),
        ("stages=[rho1,rl] cold_start.ref_model=./no", "./no"),
        ("rl.watch.evaluate_steps=1 eval.after_each=false eval.gen_length=512", "eval.gen_length"),
        ("rl.rollout.data={one} rl.num_prompts=4", "rl.num_prompts=4"),
        ("task=gsm8k prompt_style=d1 rl.rollout.data={one}", "one.csv"),
    ],
)
def test_a_late_mistake_is_found_first(words, key, tmp_path, monkeypatch, capsys):
    one = tmp_path / "one.csv"
    one.write_text("Puzzle,Solution\n4320004330100004,4321124334122134\n")
    monkeypatch.setenv("WEFT_RL_CACHE", str(tmp_path / "cache"))
    given = dict(word.split("=", 1) for word in ["stages=[sft,rl]", *QUICK])
    given |= dict(word.split("=", 1) for word in words.format(one=one).split())
    words = [f"{name}={value}" for name, value in given.items()]
    status, begun, out = status_of_stages(words, monkeypatch, tmp_path)
    message = capsys.readouterr().err
    assert (status, begun, out.exists()) == (2, False, False), message
    assert key in message
    assert message.count("\n") == 1


@pytest.mark.slow
def test_other_evaluation_options_are_evaluated_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("WEFT_RL_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "run"
    own = [word for word in QUICK if not word.startswith("eval.")]
    words = ["stages=[sft,rl]", "sampler.block_length=16", *own, f"out={out}"]
    assert pipeline.main([*words, "eval.num_records=2"]) == 0
    before = (out / "metrics.jsonl").read_bytes()
    more = ["eval.batch_size=3", "memory.gradient_checkpointing=true", "rl.watch.logging_steps=2"]
    more += ["rl.save_steps=7", "reliability.keep_checkpoints=1", "sampler.trace=true"]
    assert pipeline.main([*words, "eval.num_records=3", "eval.gen_length=16", *more]) == 0
    assert (out / "metrics.jsonl").read_bytes() == before
    scores = json.loads((out / "eval.json").read_text())
    for stage in ("base", "sft", "rl"):
        entry = scores[stage]["sudoku"]
        assert (entry["n"], entry["settings"]["sampler"]["gen_length"]) == (3, 16)
        assert len((out / f"completions/eval-{stage}.jsonl").read_text().splitlines()) == 3
    with pytest.raises(UserError, match=r"different: rl\.learning_rate\)"):
        pipeline.main([*words, "rl.learning_rate=0.5"])
