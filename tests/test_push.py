"""`push`: the folder, its model card, and the files that a stand-in of the Hub receives."""

import subprocess
import sys
from textwrap import dedent

import pytest
from adapters import adapter, change_config, load, merged_by_peft, some_ids
from hub_server import running
from huggingface_hub import ModelCard
from tiny_model import write_model
from torch.testing import assert_close
from upstream_checkpoint import llada_folder

from weft_rl.checkpoints.gguf import smollm2_in_cache
from weft_rl.checkpoints.model_card import ModelFacts, describe_base, make_card
from weft_rl.cli import execute
from weft_rl.config.load import load_run_config, to_yaml
from weft_rl.models.loading import load_tokenizer
from weft_rl.push import main
from weft_rl.runs.atomic_io import write_json
from weft_rl.runs.checksums import write_checksums

FILES = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
FILES |= {"chat_template.jinja", "README.md"}
REPO = "someone/tiny-rl"


@pytest.fixture(scope="module")
def hub():
    with running() as hub:
        yield hub


def entry(score, low, high):
    whole = {"score": score, "ci95": [low, high]}
    baselines = {"row filling": {"n": 8, "score": 40.0, "ci95": [30.0, 50.0]}}
    settings = {"sampler": {"gen_length": 16, "block_length": 8, "steps": 4, "temperature": 0.0}}
    values = {"n": 8, **whole, "exact": {"score": 12.5, "ci95": [2.2, 47.1]}}
    return {"sudoku": values | {"baselines": baselines, "settings": settings | {"data": None}}}


def run_folder(run, *options, stages=("base", "weft", "rl"), steps=3):
    """A run directory by hand: checkpoints with more files than a model has."""
    run.mkdir()
    given = ["out=/home/someone/secret", *options]
    (run / "config.yaml").write_text(to_yaml(load_run_config(given, command="test")))
    finished = {stage: f"checkpoints/{stage}/step-{steps}" for stage in stages}
    write_json(run / "stages.json", finished)
    for place in finished.values():
        (run / place).mkdir(parents=True)
        write_model(run / place)
        for name in ("optimizer.pt", "token_entropy_0.safetensors", "trainer_state.json"):
            (run / place / name).write_bytes(b"x")
        write_checksums(run / place)
    write_json(run / "eval.json", {stage: entry(50.5, 40.0, 61.0) for stage in stages})
    return run


def push(*words):
    return execute("weft_rl.push", main, [str(word) for word in words])


def pushed(hub, *words):
    command = [sys.executable, "-m", "weft_rl.push", *map(str, words)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=hub.environment(), check=False
    )
    assert done.returncode == 0, done.stderr
    return done


def card_of(folder):
    return ModelCard.load(folder / "README.md")


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_folder_of_a_run(tmp_path, capsys):
    run = run_folder(tmp_path / "a", "rl.learning_rate=0.004", "seed=7", "rl.kl_coef=0.25")
    assert push(run, f"repo={REPO}", "dry_run=true") == 0
    out = tmp_path / "a-rl-hub"
    assert capsys.readouterr().out.startswith(f"{out}: 6 files for {REPO}")
    source = content(run / "checkpoints" / "rl" / "step-3")
    assert set(content(out)) == FILES
    assert all(data == source[name] for name, data in content(out).items() if name != "README.md")
    load(out)
    load_tokenizer(out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "a-rl-hub"]


def test_the_card_of_a_run(tmp_path):
    run = run_folder(tmp_path / "a", "rl.learning_rate=0.004", "seed=7", "rl.kl_coef=0.25")
    assert push(run, f"repo={REPO}", "dry_run=true", f"out={tmp_path / 'b'}") == 0
    card = card_of(tmp_path / "b")
    metadata = card.data.to_dict()
    assert metadata["library_name"] == "weft-rl"
    assert metadata["pipeline_tag"] == "text-generation"
    assert {"weft", "rl"} < set(metadata["tags"])
    # a model from random weights has neither a base nor a license of another
    assert not {"base_model", "license", "datasets"} & metadata.keys()
    score, exact = card.data.eval_results
    assert (score.metric_type, score.metric_value, score.dataset_type) == ("score", 50.5, "sudoku")
    assert score.metric_args == {"n": 8, "ci95": [40.0, 61.0]}
    assert (exact.metric_type, exact.metric_value) == ("exact", 12.5)
    text = card.text
    assert "| pretraining | seed=0, steps=3," in text
    assert "| WeFT | seed=7, steps=3, epochs=" in text
    assert "learning_rate=0.004, kl_coef=0.25," in text
    assert "| RL (bnpo, one_step) | sudoku | score | 50.5 [40.0, 61.0] | 8 |" in text
    assert "| no model: row filling | sudoku | score | 40.0 [30.0, 50.0] | 8 |" in text
    assert "SamplerConfig(gen_length=16, block_length=8, steps=4, temperature=0.0)" in text
    assert f'load_model("{REPO}")' in text
    assert "Cold start: 1000 generated reasoning traces." in text
    assert "secret" not in card.content


def test_a_run_that_starts_from_another(tmp_path):
    """The stages of both, the scores of the last, and the data sets of the Hub."""
    first = run_folder(
        tmp_path / "a", "model=llada_8b", "stages=[weft]", "data=s1k", stages=["weft"]
    )
    model = first / "checkpoints" / "weft" / "step-3"
    run_folder(tmp_path / "b", f"model={model}", "stages=[rl]", stages=["rl"], steps=5)
    assert push(tmp_path / "b" / "checkpoints" / "rl", f"repo={REPO}", "dry_run=true") == 0
    card = card_of(tmp_path / "b-rl-hub")
    assert card.data.base_model == "GSAI-ML/LLaDA-8B-Instruct"
    assert card.data.license == "mit"
    assert card.data.datasets == ["simplescaling/s1K"]
    assert "GSAI-ML/LLaDA-8B-Instruct, after WeFT, then RL (bnpo, one_step)." in card.text
    assert "| WeFT | seed=0, steps=3," in card.text
    assert "| RL (bnpo, one_step) | seed=0, steps=5," in card.text
    assert "| WeFT | sudoku |" not in card.text
    assert str(tmp_path) not in card.content


def test_a_run_of_a_local_model(tmp_path):
    """No base that others could not load, and no path of this machine."""
    model = write_model(tmp_path / "mine")
    data = tmp_path / "traces.jsonl"
    run_folder(tmp_path / "a", f"model={model}", f"data={data}", "stages=[weft]", stages=["weft"])
    assert push(tmp_path / "a", f"repo={REPO}", "dry_run=true") == 0
    card = card_of(tmp_path / "a-weft-hub")
    assert card.data.base_model is None
    assert "the local model mine, after WeFT." in card.text
    assert "from the local file traces.jsonl." in card.text
    assert "| initial model | sudoku |" not in card.text
    assert str(tmp_path) not in card.content


@pytest.mark.parametrize("is_dequantized", [False, True])
def test_an_adapted_model(tmp_path, monkeypatch, is_dequantized):
    monkeypatch.setenv("WEFT_RL_CACHE", str(tmp_path / "cache"))
    if is_dequantized:
        smollm2_in_cache().mkdir(parents=True)
    given = ("model=smollm2_135m", "a2d.data=chats.jsonl", "stages=[a2d]")
    run_folder(tmp_path / "a", *given, stages=["a2d"])
    assert push(tmp_path / "a", f"repo={REPO}", "dry_run=true") == 0
    card = card_of(tmp_path / "a-a2d-hub")
    assert card.data.license == "apache-2.0"
    assert card.data.base_model == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert ("dequantized from 4 bits, after adaptation" in card.text) == is_dequantized


def test_the_base_of_a_gguf_file():
    for place in ("a/b.gguf", "b.gguf", "/cache/gguf-0123456789abcdef"):
        text, repo = describe_base(place)
        assert repo is None
        assert text.startswith(f"the local model {place.rpartition('/')[2]}, ")
        assert text.endswith(" dequantized from a GGUF file")


def test_scores_of_another_step_are_left_out(tmp_path):
    run = run_folder(tmp_path / "a")
    write_model(run / "checkpoints" / "rl" / "step-1")
    source = run / "checkpoints" / "rl" / "step-1"
    assert push(source, f"repo={REPO}", "dry_run=true") == 0
    card = card_of(tmp_path / "a-rl-hub")
    assert card.data.eval_results is None
    assert "| RL (bnpo, one_step) | sudoku |" not in card.text
    assert "| WeFT | sudoku | score | 50.5 [40.0, 61.0] | 8 |" in card.text


def test_a_run_without_evaluation(tmp_path):
    run = run_folder(tmp_path / "a")
    (run / "eval.json").unlink()
    assert push(run, f"repo={REPO}", "dry_run=true") == 0
    assert "Not evaluated." in card_of(tmp_path / "a-rl-hub").text


def test_an_adapter_as_it_is_and_merged(tmp_path, capsys):
    base, _ = llada_folder(tmp_path / "base")
    lora = adapter(base, tmp_path / "lora", 1)
    assert push(lora, f"repo={REPO}", "dry_run=true") == 2
    assert capsys.readouterr().err.startswith("weft_rl.push: merged=false: ")
    assert push(lora, f"repo={REPO}", "dry_run=true", "merged=true") == 0
    ids, merged = some_ids(), tmp_path / "lora-hub"
    assert_close(load(merged)(ids).logits, merged_by_peft(base, lora)(ids).logits)
    assert card_of(merged).data.get("base_model_relation") is None
    change_config(lora, base_model_name_or_path="GSAI-ML/LLaDA-1.5")
    assert push(lora, f"repo={REPO}", "dry_run=true", f"out={tmp_path / 'b'}") == 0
    assert {"adapter_config.json", "adapter_model.safetensors"} < set(content(tmp_path / "b"))
    data = card_of(tmp_path / "b").data
    assert (data.base_model, data.base_model_relation) == ("GSAI-ML/LLaDA-1.5", "adapter")


@pytest.mark.slow
def test_the_hub_receives_the_folder(hub, tmp_path):
    run = run_folder(tmp_path / "a")
    done = pushed(hub, run, f"repo={REPO}", "private=true")
    assert done.stdout == f"{hub.address}/{REPO}: 6 files of {tmp_path / 'a-rl-hub'}\n"
    assert hub.repositories[REPO]["visibility"] == "private"
    assert hub.files[REPO] == content(tmp_path / "a-rl-hub")
    # a folder with a card is uploaded as it is, and replaces weights of an earlier upload
    folder = tmp_path / "a-rl-hub"
    (folder / "README.md").write_text("---\nlicense: mit\n---\nMine.\n")
    (folder / "notes.txt").write_text("not of the model")
    hub.files[REPO] |= {"adapter_config.json": b"{}", "LICENSE": b"MIT"}
    pushed(hub, folder, f"repo={REPO}")
    (folder / "notes.txt").unlink()
    assert hub.files[REPO] == content(folder) | {"LICENSE": b"MIT"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "status", "problem"),
    [
        ({"HF_TOKEN": None}, 200, "HF_TOKEN"),
        ({"HF_TOKEN": "hf_other"}, 200, "HF_TOKEN"),
        ({}, 403, "403"),
        ({}, 500, "500"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, 200, "HF_ENDPOINT"),
        ({"HF_HUB_OFFLINE": "1"}, 200, "HF_ENDPOINT"),
        # the stand-in has no storage for xet
        ({"HF_HUB_DISABLE_XET": None}, 200, "HF_ENDPOINT"),
    ],
    ids=["no token", "another token", "forbidden", "broken", "unreachable", "offline", "xet"],
)
def test_uploads_that_fail(hub, tmp_path, monkeypatch, changes, status, problem):
    """One line with the repository and the folder that holds the files."""
    folder = write_model(tmp_path / "model")
    make_card(ModelFacts(REPO, "a model")).save(folder / "README.md")
    monkeypatch.setattr(hub, "status", status)
    command = [sys.executable, "-m", "weft_rl.push", str(folder), "repo=someone/new"]
    environment = hub.environment(**changes)
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("weft_rl.push: repo=someone/new: ")
    assert problem in line
    assert not hub.files.get("someone/new")


def test_refusals(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    write_model(tmp_path / "model")
    (tmp_path / "taken").mkdir()
    capsys.readouterr()  # of the model's saving
    for words, key in {
        (tmp_path / "model",): "repo: ",
        (tmp_path / "model", "repo=tiny"): "repo=tiny: ",
        (tmp_path / "model", "repo=a/b/c"): "repo=a/b/c: ",
        (tmp_path / "empty", "repo=a/b", "dry_run=true"): f"{tmp_path / 'empty'}: ",
        (tmp_path / "none", "repo=a/b", "dry_run=true"): f"source={tmp_path / 'none'}: ",
        (tmp_path / "model", "repo=a/b", "dry_run=true", f"out={tmp_path / 'taken'}"): "out=",
    }.items():
        assert push(*words) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith(f"weft_rl.push: {key}")
        assert captured.err.count("\n") == 1


def test_a_folder_without_a_card_gets_one(tmp_path):
    folder = write_model(tmp_path / "model")
    (folder / "README.md").write_text("---\nlibrary_name: peft\n---\n[More Information Needed]\n")
    assert push(folder, f"repo={REPO}", "dry_run=true") == 0
    assert "No record of the training" in card_of(tmp_path / "model-hub").text
    assert (folder / "README.md").read_text().endswith("Needed]\n")


TRAINERS = """
    import sys
    from pathlib import Path
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from weft_rl import ColdStartConfig, ColdStartTrainer, DiffuGRPOConfig, DiffuGRPOTrainer
    from weft_rl import SamplerConfig
    folder, source = Path(sys.argv[1]), sys.argv[2]
    silent = {"max_steps": 1, "report_to": "none", "disable_tqdm": True, "use_cpu": True}
    rows = Dataset.from_list([{"prompt": "1 + 1", "completion": "2"}] * 4)
    args = ColdStartConfig(str(folder / "cold"), hub_model_id="someone/cold", **silent)
    cold = ColdStartTrainer(source, args, train_dataset=rows, eval_dataset=rows)
    cold.train()
    cold.evaluate()
    cold.push_to_hub(dataset="someone/sums")
    args = DiffuGRPOConfig(
        str(folder / "rl"), hub_model_id="someone/rl", num_generations=2, bf16=False,
        per_device_train_batch_size=2, sampler=SamplerConfig(8, 8, 4), **silent,
    )
    trainer = DiffuGRPOTrainer(
        source, lambda completions, **_: [float(len(each)) for each in completions], args,
        train_dataset=rows.remove_columns("completion"),
        peft_config=LoraConfig(target_modules=["q_proj"]),
    )
    trainer.train()
    try:
        trainer.push_to_hub()
    except ValueError as error:
        print(error)
    adapter = trainer.accelerator.unwrap_model(trainer.model).peft_config["default"]
    adapter.base_model_name_or_path = "GSAI-ML/LLaDA-8B-Instruct"
    trainer.push_to_hub()
"""


@pytest.mark.slow
def test_trainers_push_themselves(hub, tmp_path):
    source = write_model(tmp_path / "model")
    command = [sys.executable, "-c", dedent(TRAINERS), str(tmp_path), str(source)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=hub.environment(), check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1].startswith("push_to_hub(): ")
    for name in ("cold", "rl"):
        sent = hub.files[f"someone/{name}"]
        files = {path.name: path for path in (tmp_path / name).iterdir() if path.is_file()}
        assert sent == {each: path.read_bytes() for each, path in files.items()}
        assert "tokenizer.json" in sent
    cold = card_of(tmp_path / "cold")
    assert cold.data.datasets == ["someone/sums"]
    (result,) = cold.data.eval_results
    assert result.metric_type == "nelbo"
    low, high = result.metric_args["ci95"]
    assert low < result.metric_value < high
    assert "| WeFT | steps=1, num_train_epochs=" in cold.text
    assert "4 examples of someone/sums" in cold.text
    rl = card_of(tmp_path / "rl")
    assert (rl.data.base_model, rl.data.base_model_relation) == (
        "GSAI-ML/LLaDA-8B-Instruct",
        "adapter",
    )
    assert "| RL (bnpo, one_step) | steps=1, num_generations=2," in rl.text
    assert "lora.r=8" in rl.text
