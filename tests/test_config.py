"""Options: presets, arguments, help and YAML; options of small commands."""

import json
import os
from dataclasses import FrozenInstanceError, asdict, dataclass, field, replace
from inspect import formatannotation
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from weft_rl.config.fields import leaves, option
from weft_rl.config.load import load_run_config, parse_options, preset_names, to_yaml
from weft_rl.config.model import LoraConfig
from weft_rl.config.overrides import diff_configs
from weft_rl.config.sampler import SamplerConfig
from weft_rl.config.schema import RunConfig
from weft_rl.errors import UserError
from weft_rl.families import AUTOREGRESSIVE, PUBLISHED
from weft_rl.runs.renamed import flattened

OPTIONS = Path(__file__).parent / "fixtures" / "options.txt"


def load(*argv):
    return load_run_config(argv, command="weft_rl.pipeline")


def test_option_list():
    """A new, renamed or retyped option is a decision: `UPDATE_GOLDEN=1 pytest tests/test_config.py`
    rewrites the list, and the diff is read by a person."""
    lines = [f"{key}: {formatannotation(leaf.kind)}\n" for key, leaf in leaves(RunConfig).items()]
    if os.environ.get("UPDATE_GOLDEN"):
        OPTIONS.write_text("".join(lines), encoding="utf-8")
    assert "".join(lines) == OPTIONS.read_text(encoding="utf-8")


def test_every_option_has_help():
    assert [key for key, leaf in leaves(RunConfig).items() if not leaf.item.metadata["help"]] == []


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_loads(name):
    config = load(f"preset={name}")
    models = {"paper": "llada_8b", "d1": "llada_8b", "smollm2_cpu": "smollm2_135m"}
    assert config.model == models.get(name, name)
    if config.model == name:
        assert config == load(f"model={name}")


def test_presets_are_all_there_and_set_options_only():
    paths = [*(Path(__file__).parents[1] / "configs").glob("**/*.yaml")]
    paths = [path for path in paths if path.parent.name != "accelerate"]
    names = [path.stem for path in paths]
    assert sorted(names) == sorted(preset_names() + preset_names("rl"))
    for path in paths:
        keys = dict(flattened(yaml.safe_load(path.read_text(encoding="utf-8"))))
        assert keys.keys() <= {*leaves(RunConfig), "preset"}, path


def test_a_preset_lies_over_another():
    below, paper, d1 = load("model=llada_8b"), load("preset=paper"), load("preset=d1")
    # WeFT, Appendix B
    assert (paper.stages, paper.seed, paper.data) == (["weft", "rl"], 42, "s1k")
    assert paper.eval.preset == "paper"  # 512 tokens in 256 steps; rollouts are d1's
    assert (paper.sampler.gen_length, paper.sampler.steps) == (256, 128)
    # d1's scripts
    assert (d1.stages, d1.memory.quantization) == (["rl"], "nf4")
    assert (d1.rl.num_iterations, d1.rl.lora.targets[-1]) == (8, "up_proj")
    assert d1.rl == load("model=llada_8b", "rl.preset=d1").rl
    # the rest is the lower one's
    assert (paper.rl, d1.eval, d1.prompt_style) == (below.rl, below.eval, "d1")
    assert load("preset=paper", "model=/some/folder", "stages=[weft,rl]").model == "/some/folder"


def test_published_settings():
    config = load("preset=llada_8b")
    cold, rl, sampler = config.cold_start, config.rl, config.sampler
    # WeFT, Appendix B
    assert cold.lora == LoraConfig(128, 256, 0.05, ["q_proj", "k_proj", "v_proj"])
    assert (cold.learning_rate, cold.epochs, cold.weight_decay) == (1e-5, 20, 0.1)
    assert (cold.batch_size, cold.gradient_accumulation_steps, cold.data.max_length) == (1, 4, 4096)
    assert cold.max_grad_norm == 1
    # d1's Sudoku run
    assert (rl.learning_rate, rl.num_generations, rl.num_iterations) == (3e-6, 6, 8)
    assert (rl.kl_coef, rl.loss.clip_coef, rl.masks.prompt_probability) == (0.04, 0.5, 0.15)
    assert (rl.lora.r, rl.lora.alpha, rl.rollout.temperature) == (128, 64, 0.9)
    assert rl.optimizer.max_grad_norm == 0.2
    assert (sampler.gen_length, sampler.block_length, sampler.steps) == (256, 32, 128)


def test_later_beats_earlier():
    # 0 in the schema, 128 in the preset
    assert RunConfig().cold_start.lora.r == 0
    assert load("preset=llada_8b").cold_start.lora.r == 128
    assert load("cold_start.lora.r=64", "preset=llada_8b").cold_start.lora.r == 64
    assert load("cold_start.lora.r=64", "preset=llada_8b").cold_start.lora.alpha == 256


@pytest.mark.parametrize(
    ("argv", "model", "style"),
    [
        ([], "tiny", "tiny"),
        (["model=llada_8b"], "llada_8b", "d1"),
        (["model=/some/folder"], "/some/folder", "d1"),
        (["model=owner/name"], "owner/name", "d1"),
        (["model=/some/folder", "preset=tiny"], "/some/folder", "tiny"),
    ],
)
def test_preset_follows_the_model(argv, model, style):
    config = load(*argv)
    assert (config.model, config.prompt_style) == (model, style)


TEXTS = ["1e-5", "010", "1:30", "null", "true", "${seed}", "${", r"\${a}", "???", "a, b: c", "[a]"]
TEXTS += ["0\x85", "a=b", " ü/é ", "'q'", "~", "- x", "#", "*a", "\udc80"]


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        *(("learning_rate", "1e-5", 1e-5), ("learning_rate", "3E-6", 3e-6)),
        *(("learning_rate", ".5", 0.5), ("learning_rate", "2", 2.0), ("learning_rate", "1e5", 1e5)),
        # YAML reads 010 as 8
        *(("max_steps", "12", 12), ("max_steps", "010", 10), ("max_steps", "1_000", 1000)),
        ("max_steps", "+4", 4),
    ],
)
def test_numbers(key, text, value):
    number = getattr(load(f"rl.{key}={text}").rl, key)
    assert (number, type(number)) == (value, type(value))


@pytest.mark.parametrize("text", ["[sft,rl]", "sft,rl", "[sft, rl]", "[ sft ,rl ]"])
def test_lists(text):
    assert load(f"stages={text}").stages == ["sft", "rl"]


def test_null_and_truth_values():
    config = load("out=null", "sampler.threshold=0.9", "eval.after_each=false")
    assert (config.out, config.sampler.threshold, config.eval.after_each) == (None, 0.9, False)
    assert load("sampler.threshold=null").sampler.threshold is None


def test_frozen_and_replaceable():
    config = SamplerConfig(32, 32, 16)
    with pytest.raises(FrozenInstanceError):
        config.steps = 8
    assert replace(config, steps=8).steps == 8
    with pytest.raises(UserError):
        replace(config, steps=0)
    # each run has lists of its own
    assert RunConfig().stages is not RunConfig().stages


@pytest.mark.slow
@pytest.mark.parametrize("text", TEXTS)
def test_texts_stay_as_typed(text):
    assert load(f"model={text}").model == text
    assert yaml.safe_load(to_yaml(load(f"model={text}")))["model"] == text


ANY_TEXT = st.text(st.characters(exclude_categories=[]), min_size=1).filter(str.strip)


@pytest.mark.slow
@settings(deadline=None)
@given(ANY_TEXT, st.none() | ANY_TEXT, st.floats(1e-300, 1e300), st.integers(0, 99))
def test_any_text_survives_arguments_and_yaml(model, out, rate, seed):
    assert load(f"data={model}").data == model
    config = RunConfig(model=model, out=out, seed=seed, rl=replace(RunConfig().rl, kl_coef=rate))
    assert yaml.safe_load(to_yaml(config)) == asdict(config)


def test_print_config(capsys):
    with pytest.raises(SystemExit) as caught:
        load("--print-config", "seed=7", "out=r/é")
    assert caught.value.code == 0
    assert capsys.readouterr().out == to_yaml(load("seed=7", "out=r/é"))


def test_help_shows_the_preset_and_every_key(capsys):
    with pytest.raises(SystemExit) as caught:
        load("model=llada_8b", "nonsense", "--help-all")
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: python -m weft_rl.pipeline key=value ...\n")
    assert all(f"  {key}=" in out for key in leaves(RunConfig))
    assert "  cold_start.lora.r=128  " in out
    assert "(above 0)" in out
    assert "(one of plain, d1, d1_strict)" in out


@pytest.mark.parametrize(
    ("fields", "style"),
    [
        ({"model_type": "llama"}, "chat"),
        ({"model_type": "qwen2", "is_causal": False}, "chat"),
        ({"model_type": "a2d-qwen3"}, "chat"),
        ({"model_type": "llada"}, "d1"),
        ({"model_type": "llama", "is_causal": False, "diffusion_family": "llada"}, "d1"),
        ([], "d1"),
    ],
)
def test_a_model_to_adapt_has_other_defaults(tmp_path, fields, style):
    (tmp_path / "config.json").write_text(json.dumps(fields))
    config = load(f"model={tmp_path}")
    assert config.prompt_style == style
    assert config.data == ("sudoku" if style == "chat" else "s1k")


def test_a_stage_or_a_gguf_file_tells_a_model_to_adapt():
    assert load("model=owner/name", "stages=[a2d,sft]").prompt_style == "chat"
    assert load("model=there/file.gguf").prompt_style == "chat"
    assert load("model=owner/name").prompt_style == "d1"


def test_differences_are_named():
    config = load("seed=1")
    saved = to_yaml(config) + "versions:\n  torch: 2.11\nrevision: abc\n"
    assert diff_configs(saved, config) == []
    moved = replace(config, out="elsewhere", resume="never", stages=["rl", "eval"])
    assert diff_configs(saved, moved) == []
    other = load("seed=2", "rl.lora.r=4", "sampler.threshold=0.5")
    assert diff_configs(saved, other) == ["seed", "rl.lora.r", "sampler.threshold"]
    # an option that the older file does not have
    assert diff_configs(saved.replace("task:", "tusk:"), config) == ["task"]
    assert diff_configs("", config)[:2] == ["model", "task"]


def test_a_torn_file_is_named():
    with pytest.raises(UserError, match=r"^config\.yaml: "):
        diff_configs("stages: [weft\nmodel: ", load())


@dataclass(frozen=True)
class PlotLike:
    """A small command's options."""

    runs: list[str] = field(default_factory=list, metadata={"help": "run folders"})
    seeds: list[int] = field(default_factory=lambda: [0])
    out: str | None = option(None, "where to")
    smoothing: float = option(0.6, "share", at_least=0, below=1)


@dataclass(frozen=True)
class ReportLike:
    """One required text."""

    run: str = field(metadata={"help": "a run folder"})


def small(schema, *argv, positional=None):
    return parse_options(
        schema, argv, command="weft_rl.small", description="About.", positional=positional
    )


def test_positional_arguments():
    many = small(PlotLike, "a", "smoothing=0", "b c", "r/x=1", "seeds=[1,2]", positional="runs")
    assert many == PlotLike(["a", "b c", "r/x=1"], [1, 2], None, 0.0)
    assert small(PlotLike, positional="runs") == PlotLike()
    assert small(ReportLike, "a${b", positional="run") == ReportLike("a${b")
    assert small(ReportLike, "run=null", positional="run") == ReportLike("null")


@pytest.mark.parametrize(
    ("schema", "argv", "positional", "begin"),
    [
        (ReportLike, [], "run", "run: "),
        (ReportLike, ["a", "b"], "run", "b: "),
        (ReportLike, ["a", "run=b"], "run", "a: "),
        (ReportLike, ["a"], None, "a: "),
        (PlotLike, ["a", "smothing=b"], "runs", "smothing=b: "),
        (PlotLike, ["seeds=[1,x]"], "runs", "seeds=[1,x]: "),
        (PlotLike, ["seeds=${a}"], "runs", "seeds=[${a}]: "),
        (PlotLike, ["smoothing=1"], "runs", "smoothing=1.0: "),
    ],
)
def test_mistakes_in_small_commands(schema, argv, positional, begin):
    with pytest.raises(UserError) as caught:
        small(schema, *argv, positional=positional)
    assert str(caught.value).startswith(begin)


def test_help_of_a_small_command(capsys):
    with pytest.raises(SystemExit):
        small(ReportLike, "--help", positional="run")
    # 40 columns for the option, two spaces
    assert capsys.readouterr().out.splitlines() == [
        "usage: python -m weft_rl.small RUN ... key=value ...",
        "",
        "About.",
        "",
        f"  {'run=':<40}  a run folder",
        "",
        "  --print-config  print the resolved options as YAML and exit",
        "  --help          print this help and exit",
    ]


@pytest.mark.parametrize("name", sorted({*PUBLISHED, *AUTOREGRESSIVE} & {*preset_names()}))
def test_a_preset_of_a_model(name):
    """Its prompts are in the words of its traces, and its answers fit."""
    config = load(f"model={name}")
    assert config.model == name
    if name != "llada_8b":
        assert (config.data, config.prompt_style) == ("sudoku", "chat")
        assert config.sampler.gen_length >= 53  # SmolLM2's tokens of an answer
        assert config.cold_start.data.max_length >= 158
        assert config.sampler.block_length == (32 if "bd3lm" in name else 64)
