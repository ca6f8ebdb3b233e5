"""`sample`: what it reads, what it draws and writes, on an untrained tiny model."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from safetensors.torch import load_file, save_file

from weft_rl.config.load import load_run_config, parse_options, to_yaml
from weft_rl.config.schema import BaseConfig
from weft_rl.errors import UserError
from weft_rl.models.loading import fresh_model
from weft_rl.models.toy import tiny_config, tiny_tokenizer
from weft_rl.sample import SampleOptions, draw_grid, find_checkpoint, main, sampler_config

PUZZLE, SOLUTION = "4320004330100004", "4321124334122134"


def save_model(folder):
    fresh_model(tiny_config(BaseConfig(num_hidden_layers=1)), 0).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder with two stages through, evaluated on a canvas of 24 tokens."""
    run = tmp_path_factory.mktemp("run")
    options = ["sampler.gen_length=24", "sampler.block_length=12", "sampler.steps=8"]
    config = load_run_config([*options, "sampler.temperature=0.5"], command="it")
    (run / "config.yaml").write_text(to_yaml(config) + "versions: {}\nrevision: unknown\n")
    finished = {"weft": "checkpoints/weft/step-9", "rl": "checkpoints/rl/step-2"}
    for place in finished.values():
        save_model(run / place)
    (run / "stages.json").write_text(json.dumps(finished))
    return run


def options(*argv):
    return parse_options(SampleOptions, argv, command="it", description="")


def test_a_puzzle_and_its_trace(checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([f"checkpoint={checkpoint}", f"prompt={PUZZLE}", "trace=true", "device=cpu"]) == 0
    said = capsys.readouterr().out
    assert said.endswith(f"trace: {tmp_path / 'trace.json'}\n")
    assert said.count("─┼─") == 3 * 3  # lines between four rows, crossing three times each
    trace = json.loads((tmp_path / "trace.json").read_text())
    assert [*trace] == ["prompt", "prompt_tokens", "completion", "tokens", "steps"]
    assert trace["prompt"].startswith("Sudoku:4320")
    assert trace["prompt_tokens"][2:5] == ["Sudoku:", "4", "3"]
    assert said.startswith(trace["completion"])
    # the tiny preset's canvas, each place committed once, to what stands there in the end
    steps = trace["steps"]
    assert len(trace["tokens"]) == 32
    assert len({step["position"] for step in steps}) == len(steps) <= 32
    assert all(trace["tokens"][step["position"]] == step["text"] for step in steps)
    assert [*steps[0]] == ["step", "position", "token", "confidence", "text"]
    assert "".join(trace["tokens"]).startswith(trace["completion"])


def test_draws_depend_on_the_seed_only(checkpoint, capsys):
    argv = [f"checkpoint={checkpoint}", "prompt=Compute: 1+2", "temperature=1", "device=cpu"]
    texts = []
    for seed in (0, 0, 1):
        assert main([*argv, f"seed={seed}"]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2]
    assert "─" not in texts[0]


def test_streaming_says_the_same(checkpoint, capsys):
    argv = [f"checkpoint={checkpoint}", "prompt=1+2", "device=cpu", "cache=dual", "threshold=0.5"]
    said = []
    for stream in ("false", "true"):
        assert main([*argv, f"stream={stream}"]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] != "\n"


def test_a_run_folder_lends_its_sampler_and_newest_stage(run, tmp_path, capsys):
    origin = find_checkpoint(run)
    assert (origin.folder, origin.style) == (run / "checkpoints" / "rl" / "step-2", "tiny")
    config = options("checkpoint=a", "prompt=1", "steps=4", "trace=true")
    expected = load_run_config([], command="it").sampler
    expected = replace(expected, gen_length=24, block_length=12, steps=4, temperature=0.5)
    assert sampler_config(config, origin.sampler) == replace(expected, trace=True)
    assert find_checkpoint(run / "checkpoints" / "weft" / "step-9").sampler == origin.sampler
    path = tmp_path / "a.json"
    argv = [f"checkpoint={run}", "prompt=1+2", "trace=true", f"out={path}", "device=cpu"]
    assert main(argv) == 0
    trace = json.loads(path.read_text())
    assert (len(trace["tokens"]), trace["prompt"]) == (24, "1+2")


def test_the_runs_wording_of_a_puzzle(run, capsys):
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("prompt_style: tiny", "prompt_style: d1"))
    try:
        # d1's prompt is beyond the tiny vocabulary, which shows that it was used
        with pytest.raises(UserError, match="the model has no tokens for some of it"):
            main([f"checkpoint={run}", f"prompt={PUZZLE}", "device=cpu"])
    finally:
        (run / "config.yaml").write_text(text)


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["prompt=1"], "checkpoint: is missing"),
        (["checkpoint={}"], "prompt: is missing"),
        (["checkpoint={}/none", "prompt=1"], "none: no such folder"),
        (["checkpoint={}/..", "prompt=1"], "holds neither a model (config.json or"),
        (["checkpoint={}", "prompt=1", "out=a.json"], "out=a.json: is where the trace is"),
        (["checkpoint={}", "prompt=1", "device=tpu"], "device=tpu: must be auto, cpu"),
        (["checkpoint={}", "prompt=1", "steps=45"], "steps=45: must be at most gen_length"),
        (["checkpoint={}", "prompt=1", "cache=no"], "cache=no: must be one of none, prefix, dual"),
        (["checkpoint={}", "prompt=1", "refresh_every=2"], "use cache=prefix or dual, or null"),
        (["checkpoint={}", "prompt=1", "end_tokens=no"], "end_tokens=no: must be one of free"),
        (["checkpoint={}", "prompt=1", "remasking=no"], "remasking=no: must be one of low_"),
        (["checkpoint={}", "prompt=1", "gen_length=30"], "gen_length=30: must be a multiple of bl"),
        (["checkpoint={}", "prompt=hello"], "prompt=hello: the model has no tokens for some"),
        (
            ["checkpoint={}", "prompt=1", "gen_length=448", "steps=112"],
            "gen_length=448: with the prompt's 5 tokens more than the model's 256",
        ),
    ],
)
def test_mistakes(argv, line, checkpoint):
    with pytest.raises(UserError) as error:
        main([word.format(checkpoint) for word in argv])
    assert line in str(error.value)


@pytest.mark.parametrize("temperature", [0, 0.7])
def test_weights_that_are_no_numbers(tmp_path, temperature):
    folder = save_model(tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.transformer.ln_f.weight"][0] = float("nan")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="logits are not finite; look for NaN in its weights"):
        main([f"checkpoint={folder}", f"prompt={PUZZLE}", f"temperature={temperature}"])


@pytest.mark.parametrize("text", ["a: [", "[]", "prompt_style: odd\n", "prompt_style: d1\n"])
def test_a_damaged_run_folder(text, tmp_path):
    place = tmp_path / "checkpoints" / "rl" / "step-1"
    place.mkdir(parents=True)
    (place / "config.json").write_text("{}")
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=r"config\.yaml: holds no options of a run"):
        find_checkpoint(place)
    (tmp_path / "stages.json").write_text("{}")
    with pytest.raises(UserError, match="finished no stage yet"):
        find_checkpoint(tmp_path)


def test_a_mistake_without_torch(checkpoint):
    code = (
        "import sys; from weft_rl.__main__ import main; status = main(sys.argv[1:]); "
        "sys.exit(9 if 'torch' in sys.modules else status)"
    )
    argv = ["sample", f"checkpoint={checkpoint}", "prompt=1", "steps=45"]
    done = subprocess.run(
        [sys.executable, "-c", code, *argv], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def colours(completion, puzzle=PUZZLE):
    columns = draw_grid(puzzle, completion).columns
    rows = zip(*(column._cells for column in columns), strict=True)
    return "".join(f"{cell.plain}{cell.style[0]}" for row in rows for cell in row)


def test_the_grid_is_judged():
    # bold clues, green where the solution has the digit, red elsewhere
    text = "4b3b2b1g1g2g4b3b3b4g1b2g2g1g3g4b"
    assert colours(f"<answer>{SOLUTION}</answer>") == text
    wrong = "3" + SOLUTION[1:3] + "4" + SOLUTION[4:15]  # a clue, a cell, and the last one missing
    judged = f"3r3b2b4r{text[8:-2]}·r"
    assert colours(f"<answer>{wrong}</answer>") == judged
    clues = "4b3b2b·r·r·r4b3b3b·r1b·r·r·r·r4b"
    assert colours("no answer") == colours("<answer></answer>") == clues
