"""`sample`: what it reads, draws and writes, on an untrained tiny model."""

import json
from dataclasses import replace

import pytest
from run_folders import PUZZLE, SOLUTION
from safetensors.torch import load_file, save_file
from tiny_model import write_bpe_model, write_model

from weft_rl.config.load import load_run_config, parse_options, to_yaml
from weft_rl.errors import UserError
from weft_rl.io.terminal import Console
from weft_rl.sample import SampleOptions, draw_grid, find_checkpoint, main, sampler_config


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def run(tmp_path):
    words = ["sampler.gen_length=24", "sampler.block_length=12", "sampler.steps=8"]
    config = load_run_config([*words, "sampler.temperature=0.5"], command="it")
    (tmp_path / "config.yaml").write_text(to_yaml(config) + "versions: {}\nrevision: unknown\n")
    finished = {"weft": "checkpoints/weft/step-9", "rl": "checkpoints/rl/step-2"}
    for place in finished.values():
        write_model(tmp_path / place)
    (tmp_path / "stages.json").write_text(json.dumps(finished))
    return tmp_path


def test_a_puzzle_and_its_trace(checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([f"checkpoint={checkpoint}", f"prompt={PUZZLE}", "trace=true", "device=cpu"]) == 0
    printed = capsys.readouterr().out
    assert printed.endswith(f"trace: {tmp_path / 'trace.json'}\n")
    assert printed.count("─┼─") == 3 * 3  # lines between four rows, crossing three times each
    trace = json.loads((tmp_path / "trace.json").read_text())
    assert [*trace] == ["prompt", "prompt_tokens", "completion", "tokens", "steps"]
    assert trace["prompt"].startswith("Sudoku:4320")
    assert trace["prompt_tokens"][2:5] == ["Sudoku:", "4", "3"]
    assert printed.startswith(trace["completion"])
    # the tiny preset's canvas, each position unmasked once, to what is there in the end
    steps = trace["steps"]
    assert len(trace["tokens"]) == 32
    assert len({step["position"] for step in steps}) == len(steps) <= 32
    assert all(trace["tokens"][step["position"]] == step["text"] for step in steps)
    assert [*steps[0]] == ["step", "position", "token", "confidence", "text"]
    assert "".join(trace["tokens"]).startswith(trace["completion"])


def test_a_system_message_is_part_of_the_prompt(checkpoint, tmp_path):
    folder, tokens = write_bpe_model(tmp_path / "bpe"), []
    for more in ([], ["system=Be brief."]):
        out = tmp_path / f"{len(tokens)}.json"
        words = [f"checkpoint={folder}", "prompt=2 + 3", "device=cpu", "trace=true"]
        words += ["gen_length=8", "block_length=8", "steps=2"]
        assert main([*words, f"out={out}", *more]) == 0
        tokens.append(json.loads(out.read_text())["prompt_tokens"])
    without, with_system = map("".join, tokens)
    assert "Be brief." not in without
    assert with_system.index("Be brief.") < with_system.index("2 + 3")
    with pytest.raises(UserError, match=r"^system=1 2: "):
        main([f"checkpoint={checkpoint}", f"prompt={PUZZLE}", "device=cpu", "system=1 2"])


def test_draws_depend_on_the_seed_only(checkpoint, capsys):
    argv = [f"checkpoint={checkpoint}", "prompt=Compute: 1+2", "temperature=1", "device=cpu"]
    texts = []
    for more in ("seed=0", "stream=true", "seed=1"):
        assert main([*argv, more]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2]
    assert "─" not in texts[0]


def test_the_sampler_and_newest_stage_of_a_run(run, capsys):
    origin = find_checkpoint(run)
    assert (origin.folder, origin.style) == (run / "checkpoints" / "rl" / "step-2", "tiny")
    words = ["checkpoint=a", "prompt=1", "steps=4", "trace=true"]
    config = parse_options(SampleOptions, words, command="it", description="")
    expected = load_run_config([], command="it").sampler
    expected = replace(expected, gen_length=24, block_length=12, steps=4, temperature=0.5)
    assert sampler_config(config, origin.sampler) == replace(expected, trace=True)
    assert find_checkpoint(run / "checkpoints" / "weft" / "step-9").sampler == origin.sampler
    path = run / "a.json"
    argv = [f"checkpoint={run}", "prompt=1+2", "trace=true", f"out={path}", "device=cpu"]
    assert main(argv) == 0
    trace = json.loads(path.read_text())
    assert (len(trace["tokens"]), trace["prompt"]) == (24, "1+2")
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("prompt_style: tiny", "prompt_style: d1"))
    # d1's prompt is beyond the tiny vocabulary, which shows that it was used
    with pytest.raises(UserError, match=f"prompt={PUZZLE}"):
        main([f"checkpoint={run}", f"prompt={PUZZLE}", "device=cpu"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "word",
    [
        *("checkpoint={}/none", "checkpoint={}/..", "out=a.json", "device=tpu", "steps=45"),
        *("cache=no", "refresh_every=2", "end_tokens=no", "remasking=no", "gen_length=30"),
        *("prompt=hello", "gen_length=448 steps=112", "prompt=", "checkpoint="),
    ],
)
def test_mistakes(word, checkpoint):
    words = dict(each.split("=") for each in word.format(checkpoint).split())
    words = {"checkpoint": checkpoint, "prompt": "1"} | words
    with pytest.raises(UserError, match=rf"^{word.partition('=')[0]}(=|: )"):
        main([f"{name}={value}" for name, value in words.items()])


@pytest.mark.parametrize("temperature", [0, 0.7])
def test_nan_weights(tmp_path, temperature):
    folder = write_model(tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.transformer.ln_f.weight"][0] = float("nan")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="row 0, step 0"):
        main([f"checkpoint={folder}", f"prompt={PUZZLE}", f"temperature={temperature}"])


def test_a_damaged_run_directory(tmp_path):
    place = tmp_path / "checkpoints" / "rl" / "step-1"
    place.mkdir(parents=True)
    (place / "config.json").write_text("{}")
    for text in ("a: [", "[]", "prompt_style: d1\n", "prompt_style: odd\nsampler: {}\n"):
        (tmp_path / "config.yaml").write_text(text)
        with pytest.raises(UserError, match=rf"^{tmp_path}/config\.yaml: "):
            find_checkpoint(place)
    (tmp_path / "stages.json").write_text("{}")
    with pytest.raises(UserError, match=f"^checkpoint={tmp_path}: "):
        find_checkpoint(tmp_path)


def test_the_grid_is_judged():
    def colors(completion):
        """Each cell and the first letter of its style."""
        console = Console(width=40)
        segments = console.render(draw_grid(PUZZLE, completion))
        styles = {"bold": "b", "green": "g", "red": "r"}
        cells = [s for s in segments if s.text in "01234·" and str(s.style) in styles]
        return "".join(f"{cell.text}{styles[str(cell.style)]}" for cell in cells)

    # bold clues, green where the solution has the digit, red elsewhere
    text = "4b3b2b1g1g2g4b3b3b4g1b2g2g1g3g4b"
    assert colors(f"<answer>{SOLUTION}</answer>") == text
    wrong = "3" + SOLUTION[1:3] + "4" + SOLUTION[4:15]  # a clue, a cell, and the last one missing
    assert colors(f"<answer>{wrong}</answer>") == f"3r3b2b4r{text[8:-2]}·r"
    clues = "4b3b2b·r·r·r4b3b3b·r1b·r·r·r·r4b"
    assert colors("no answer") == colors("<answer></answer>") == clues
