"""--config, --dry-run, --help-all, presets, and the wording of prompts."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import yaml
from bpe import llada_bpe
from pipeline_runs import metrics

from weft_rl import compare
from weft_rl.config import presets
from weft_rl.config.config_file import with_config_file
from weft_rl.config.fields import leaves
from weft_rl.config.load import load_run_config, preset_names, to_yaml
from weft_rl.config.schema import RunConfig
from weft_rl.data.prompts import PromptFormat
from weft_rl.data.records import Record
from weft_rl.data.tasks import task_chat
from weft_rl.data.text import check_wording
from weft_rl.errors import UserError
from weft_rl.pipeline import run as pipeline
from weft_rl.plan import command as plan
from weft_rl.runs.atomic_io import write_text

QUICK = ["stages=[rl]", "rl.num_prompts=2", "rl.num_generations=2", "rl.max_steps=2"]
QUICK += ["sampler.steps=4", "eval.num_records=2", "preset=tiny", "device=cpu"]


def written(path, text):
    write_text(path, text)
    return str(path)


def test_a_files_options_are_below_the_arguments_and_above_the_preset(tmp_path):
    file = written(tmp_path / "my.yaml", "rl.max_steps: 7\nrl: {num_prompts: 4}\nseed: 3\nout: x\n")
    config = load_run_config(["--config", file, "seed=5", "preset=tiny"], command="it")
    assert (config.rl.max_steps, config.rl.num_prompts, config.seed) == (7, 4, 5)
    assert config.out == "x"
    assert (
        config.rl.num_generations
        == load_run_config(["preset=tiny"], command="it").rl.num_generations
    )
    assert with_config_file([f"--config={file}"], reserved=["seed", "out"]) == [
        "rl.max_steps=7",
        "rl.num_prompts=4",
    ]


@pytest.mark.parametrize(
    "text",
    ["task.prompt: a {puzzle}", "task: {prompt: 'a {puzzle}'}", "prompt_template: a {puzzle}"],
)
def test_a_file_may_have_a_template_and_arguments_replace_it(tmp_path, text):
    argv = ["--config", written(tmp_path / "my.yaml", text)]
    assert load_run_config(argv, command="it").prompt_template == "a {puzzle}"
    for key in ("task.prompt", "prompt_template"):
        config = load_run_config([*argv, f"{key}=b {{puzzle}}"], command="it")
        assert config.prompt_template == "b {puzzle}"


def test_a_file_may_have_options_of_the_command(tmp_path, capsys):
    file = written(tmp_path / "my.yaml", "arms: [sft, weft]\nseeds: [4]\nrl.max_steps: 3\n")
    options, config, arguments = compare.read_options(["--config", file])
    assert (options.arms, options.seeds, config.rl.max_steps) == (["sft", "weft"], [4], 3)
    assert arguments == ["rl.max_steps=3"]
    file = written(tmp_path / "plan.yaml", "devices: 3\nhardware: a100\nstages: [weft]\n")
    assert plan.main([f"--config={file}", "devices=2"]) == 0
    assert "2 x a100" in capsys.readouterr().out


@pytest.mark.parametrize("versions", ["versions: {}\n", "versions: {python: 3.11.7}\n"])
def test_the_configuration_of_a_comparison_repeats_it(tmp_path, versions):
    first = compare.read_options(["arms=[nll,sft]", "seeds=[2]", "rl.max_steps=3"])
    saved = {**asdict(first[0]), "out": "old", "run": {**asdict(first[1]), "resume": "never"}}
    file = written(tmp_path / "config.yaml", yaml.safe_dump(saved) + versions)
    options, config, _ = compare.read_options(["--config", file])
    assert (options, config) == (first[0], first[1])


def test_the_configuration_of_a_run_gives_its_options_but_not_its_directory(tmp_path):
    config = load_run_config(["seed=3", "out=old", "resume=never", "rl.kl_coef=0.1"], command="it")
    saved = to_yaml(config) + "versions: {torch: 2.11.0}\nrevision: abc\n"
    again = load_run_config(["--config", written(tmp_path / "c.yaml", saved)], command="it")
    assert again == replace(config, out=None, resume="auto")


@pytest.mark.parametrize(
    ("text", "begin"),
    [
        ("rl: {max_stepz: 7}", "{file}: rl.max_stepz=7: "),
        ("rl.objective: bnpo", "{file}: rl.objective=bnpo: renamed; write rl.loss_type=bnpo"),
        ("- 1", "{file}: "),
        ("a: [", "{file}: "),
        ("rl: {max_steps: abc}", "{file}: rl.max_steps=abc: "),
        ("rl: {max_steps: 0}", "{file}: rl.max_steps=0: "),
        ("stages: [[weft]]", "{file}: stages="),
        ("rl: {max_steps: 2}\nrl.max_steps: 3", "{file}: rl.max_steps=3: already given as "),
        ("task.prompt: a\nprompt_template: b", "{file}: prompt_template=b: already given as "),
        ("arms: [sft]", "{file}: arms=[sft]: "),
        ("versions: {}\nrun: 3", "{file}: run=3: "),
        (None, "{file}: "),
    ],
)
def test_mistakes_in_a_file(tmp_path, text, begin):
    file = str(tmp_path / "my.yaml")
    if text is not None:
        written(Path(file), text)
    with pytest.raises(UserError) as caught:
        load_run_config(["--config", file], command="it")
    assert str(caught.value).startswith(begin.format(file=file))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("argv", [["--config"], ["--config=a.yaml", "--config", "b.yaml"]])
def test_one_file(argv):
    with pytest.raises(UserError, match=r"^--config"):
        load_run_config(argv, command="it")


@pytest.mark.slow
def test_the_configuration_of_a_run_repeats_it(start, tmp_path):
    one, two, other = tmp_path / "one", tmp_path / "two", tmp_path / "other"
    words = [*QUICK[1:], "stages=[sft,rl]", "cold_start.records=4", "cold_start.epochs=1"]
    words += ["cold_start.logging_steps=1", "seed=3", f"model={start}"]
    assert pipeline.main([*words, f"out={one}"]) == 0
    repeat = ["--config", str(one / "config.yaml")]
    assert pipeline.main([*repeat, f"out={two}"]) == 0
    assert metrics(one) == metrics(two)
    results = [json.loads((run / "eval.json").read_text()) for run in (one, two)]
    assert results[0] == results[1]
    # the numbers are not trivially equal: another seed changes them
    assert pipeline.main([*repeat, "seed=4", "stages=[sft]", f"out={other}"]) == 0
    losses = [
        [row["loss"] for row in metrics(run) if row["stage"] == "sft" and "loss" in row]
        for run in (one, other)
    ]
    assert min(losses[0]) > 0
    assert losses[0] != losses[1]


def test_a_dry_run_prints_options_data_and_plan_and_writes_nothing(
    start, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    words = [*QUICK[1:], "stages=[sft,rl]", "cold_start.records=4", "cold_start.epochs=3"]
    words += [f"model={start}", "--dry-run"]
    assert pipeline.main([*words, f"out={tmp_path / 'run'}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "  max_steps: 2" in lines
    assert any(line.startswith("sft: 4 records, ") for line in lines)
    # a prompt has 21 tokens: Sudoku:, 16 digits, and 4 of the chat template
    assert "rl: 2 prompts, 42 tokens, the longest has 21; 1 rollouts of 2 x 2 completions" in lines
    assert "eval: 2 prompts, 42 tokens, the longest has 21" in lines
    # 4 records are one step per epoch
    assert ["steps", "3", "2"] in [line.replace("│", " ").split() for line in lines]
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="task=gsm8k"):
        pipeline.main([*words, "task=gsm8k"])


def test_a_dry_run_of_an_evaluation_has_no_plan(start, capsys):
    words = ["eval.num_records=2", "preset=tiny", f"model={start}", "stages=[eval]", "--dry-run"]
    assert pipeline.main(words) == 0
    assert capsys.readouterr().out.endswith("eval: 2 prompts, 42 tokens, the longest has 21\n")


def test_a_dry_run_rejects_a_directory_that_the_run_would(start, tmp_path):
    written(tmp_path / "notes.txt", "mine")
    with pytest.raises(UserError, match=r"^out="):
        pipeline.main([*QUICK, f"model={start}", "--dry-run", f"out={tmp_path}"])
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_dry_run_of_a_comparison(start, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [*QUICK[1:], f"model={start}", "cold_start.records=4", "arms=[sft,nll]", "seeds=[0,5]"]
    assert compare.main([*words, "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("4 runs, ") for line in lines)
    assert any(line.startswith("sft, nll: 4 records, ") for line in lines)
    assert list(tmp_path.iterdir()) == []


def test_presets_lists_each_with_a_description(capsys):
    assert presets.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    described = {line.split()[0] for line in lines if len(line.split(maxsplit=1)[-1]) > 20}
    assert described == {*preset_names(), *preset_names("rl/")}


def test_help_shows_ten_options_and_help_all_the_rest(capsys):
    shown = {}
    for flag in ("--help", "--help-all"):
        with pytest.raises(SystemExit):
            load_run_config([flag], command="it")
        words = [line.split("=")[0].strip() for line in capsys.readouterr().out.splitlines()]
        shown[flag] = [word for word in words if word in leaves(RunConfig)]
    assert len(shown["--help"]) == 10
    assert sorted(shown["--help-all"]) == sorted(leaves(RunConfig))


def test_a_template_and_a_system_message_word_the_prompt():
    record = Record("1", "gsm8k", {"question": "2 + 3", "answer": "5"})
    wording = PromptFormat("d1", "Solve {question}", "Be brief.")
    assert task_chat(wording, record) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Solve 2 + 3"},
    ]
    for template in ("{problem}", "{", "{0}", "{question.no}"):
        with pytest.raises(UserError, match=r"^task\.prompt=.*\{question\}, \{answer\}$"):
            task_chat(PromptFormat("d1", template), record)


@pytest.fixture(scope="module")
def bpe_start(tmp_path_factory):
    from tiny_model import write_bpe_model

    return write_bpe_model(tmp_path_factory.mktemp("bpe"))


def dry_counts(capsys, *words):
    """Tokens per stage as --dry-run prints them."""
    more = ["stages=[sft,rl]", "cold_start.records=4", "cold_start.data.max_length=256"]
    assert pipeline.main([*QUICK[1:], *more, *words, "--dry-run"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    return {line[0]: int(line[3]) for line in lines if line[4:5] == ["tokens,"]}


def test_the_wording_is_encoded_in_every_prompt(bpe_start, capsys):
    plain = dry_counts(capsys, f"model={bpe_start}")
    system = dry_counts(capsys, f"model={bpe_start}", "system=Be brief.")
    # 4 examples, 2 prompts and 2 held-out prompts, each with the same message before it
    added = {stage: system[stage] - plain[stage] for stage in plain}
    assert added["rl:"] == added["eval:"] == added["sft:"] / 2 > 0
    template = dry_counts(capsys, f"model={bpe_start}", "task.prompt=Solve: Sudoku:{puzzle}")
    added = {stage: template[stage] - plain[stage] for stage in plain}
    assert added["rl:"] == added["eval:"] > 0
    assert added["sft:"] == 0  # examples have questions of their own


@pytest.mark.parametrize(
    ("word", "stages"),
    [
        ("system=1 2", "[sft,rl]"),
        ("system=1 2", "[eval]"),
        ("system=1 2", "[sft]"),
        ("task.prompt=Solve: {puzzle}", "[rl]"),
        ("task.prompt=Solve: {puzzle}", "[eval]"),
    ],
)
def test_words_outside_the_vocabulary_are_refused(start, word, stages):
    words = [*QUICK[1:], f"model={start}", f"stages={stages}", "cold_start.records=4", "--dry-run"]
    scored = "eval.after_each=false"  # refused by the stage, too
    with pytest.raises(UserError) as caught:
        pipeline.main([*words, word, scored])
    assert str(caught.value).startswith(f"{word}: ")


def test_a_chat_template_without_system_messages():
    tokenizer = llada_bpe()
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}"
        "{% endif %}{{ m.content }}{% endfor %}"
    )
    check_wording(tokenizer, PromptFormat("d1", "Solve {puzzle}"))
    with pytest.raises(UserError, match=r"^system=Be brief\.: .*no system"):
        check_wording(tokenizer, PromptFormat("d1", system="Be brief."))


@pytest.mark.slow
def test_the_wording_reaches_training_and_evaluation(bpe_start, tmp_path):
    words = [*QUICK[1:], f"model={bpe_start}", "stages=[sft,rl]"]
    words += ["cold_start.records=4", "cold_start.epochs=1", "cold_start.logging_steps=1"]
    words += ["cold_start.data.max_length=256"]
    wording = ["task.prompt=Sudoku:{puzzle}=", "system=Be brief."]
    one, two = tmp_path / "one", tmp_path / "two"
    assert pipeline.main([*words, f"out={one}"]) == 0
    assert pipeline.main([*words, *wording, f"out={two}"]) == 0
    for name in ("rl", "eval-rl"):
        row = json.loads((two / f"completions/{name}.jsonl").read_text().splitlines()[0])
        assert row["prompt"].endswith("=")
    settings = json.loads((two / "eval.json").read_text())["rl"]["sudoku"]["settings"]
    assert (settings["prompt_template"], settings["system"]) == ("Sudoku:{puzzle}=", "Be brief.")
    # other inputs, other numbers
    for stage, name in (("sft", "loss"), ("rl", "entropy")):
        numbers = [
            [row[name] for row in metrics(run) if row["stage"] == stage and name in row]
            for run in (one, two)
        ]
        assert numbers[0] != numbers[1]
    with pytest.raises(UserError, match="system"):
        pipeline.main([*words, wording[0], f"out={two}", "system=Be long."])
