"""What a run, a stage and a checkpoint stand for where a model is named, and their defaults."""

import pytest
import yaml

from weft_rl.config.load import load_run_config, to_yaml
from weft_rl.errors import UserError
from weft_rl.runs.atomic_io import write_json
from weft_rl.runs.folder import checkpoint_of, run_of


@pytest.fixture
def run(tmp_path):
    """A run of tiny with options of its own: weft is through, rl has begun."""
    run = tmp_path / "run"
    for place in ("weft/step-6", "rl/step-9", "rl/step-10"):
        (run / "checkpoints" / place).mkdir(parents=True)
        (run / "checkpoints" / place / "config.json").write_text("{}")
    write_json(run / "stages.json", {"weft": "checkpoints/weft/step-6"})
    words = ["sampler.steps=8", "rl.kl_coef=0.5", "seed=3", f"out={run}", "device=cpu"]
    config = load_run_config([*words, "stages=[weft,rl]"], command="it")
    (run / "config.yaml").write_text(to_yaml(config) + "versions: {torch: '0'}\nrevision: x\n")
    return run


@pytest.mark.parametrize(
    ("place", "found"),
    [
        ("", "weft/step-6"),
        ("checkpoints/weft", "weft/step-6"),
        ("checkpoints/rl", "rl/step-10"),
        ("checkpoints/rl/step-9", "rl/step-9"),
    ],
)
def test_a_place_of_a_run(run, place, found, capsys):
    checkpoint = str(run / "checkpoints" / found)
    assert checkpoint_of(str(run / place)) == checkpoint
    assert run_of(checkpoint) == run
    words = [f"model={run / place}", "stages=[rl]"]
    config = load_run_config(words, command="it", tell=True)
    assert str(run / "config.yaml") in capsys.readouterr().err
    assert config.model == checkpoint
    assert (config.sampler.gen_length, config.sampler.steps) == (32, 8)
    assert (config.rl.kl_coef, config.prompt_style, config.seed) == (0.5, "tiny", 3)
    assert (config.out, config.device, config.stages) == (None, "auto", ["rl"])


def test_arguments_and_presets_win_over_the_run(run):
    words = [f"model={run}", "stages=[rl]"]
    assert load_run_config([*words, "rl.kl_coef=1"], command="it").rl.kl_coef == 1
    assert load_run_config([*words, "rl.preset=d1_tiny"], command="it").rl.kl_coef == 0.04
    assert load_run_config([*words, "preset=llada_8b"], command="it").sampler.gen_length == 256


def test_a_reference_of_a_run(run):
    words = ["stages=[rho1]", f"cold_start.ref_model={run}"]
    config = load_run_config(words, command="it")
    assert config.cold_start.ref_model == str(run / "checkpoints/weft/step-6")


def test_a_run_without_a_finished_stage(run):
    (run / "stages.json").unlink()
    with pytest.raises(UserError, match=f"model={run}: "):
        load_run_config([f"model={run}"], command="it")
    (run / "checkpoints" / "sft").mkdir()
    with pytest.raises(UserError, match="model="):
        load_run_config([f"model={run / 'checkpoints' / 'sft'}"], command="it")


def test_a_folder_of_no_run_has_the_large_presets_defaults(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    config = load_run_config([f"model={tmp_path}"], command="it")
    assert config.sampler.gen_length == 256


def test_damaged_options_of_a_run_are_named(run):
    saved = yaml.safe_load((run / "config.yaml").read_text())
    saved["rl"]["max_steps"] = "many"
    (run / "config.yaml").write_text(yaml.safe_dump(saved))
    with pytest.raises(UserError, match=r"config\.yaml: rl\.max_steps=many"):
        load_run_config([f"model={run}"], command="it")


def test_a_folder_below_the_root_is_no_stage():
    assert checkpoint_of("/") == "/"
    assert checkpoint_of("/tmp") == "/tmp"
