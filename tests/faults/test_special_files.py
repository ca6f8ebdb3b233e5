"""Special, sparse and deeply nested files where a checkpoint or run has its own: one line each."""

import json
import os
import shutil
import socket
import time

import pytest
import torch
from damaged_runs import whole_run, write
from fuzz import no_hang
from fuzz_targets import make_model

from weft_rl.checkpoints.lora_merge import chain
from weft_rl.errors import UserError
from weft_rl.models.loading import load_model, load_tokenizer
from weft_rl.plot.__main__ import plot_runs
from weft_rl.report.run_report import write_report
from weft_rl.runs.checksums import verify_checksums, write_checksums
from weft_rl.runs.folder import finished_stages
from weft_rl.runs.lock import run_lock

DEEP = "[" * 100_000


def _socket(path):
    # a socket's path is short
    os.chdir(path.parent)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)


def _sparse(path):
    with path.open("wb") as file:
        file.truncate(10 * 2**30)


KINDS = {
    "pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "sparse": _sparse,
    "socket": _socket,
    "folder": lambda path: path.mkdir(),
    "dangling": lambda path: path.symlink_to("nowhere"),
    "loop": lambda path: path.symlink_to(path.name),
    "deep": lambda path: path.write_text(DEEP),
    "deep objects": lambda path: path.write_text('{"a":' * 100_000),
    "digits": lambda path: path.write_text('{"a": ' + "9" * 10_000 + "}"),
    "binary": lambda path: path.write_bytes(b"\xff\xfe\0"),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("special") / "model"
    make_model(folder)
    (folder / "generation_config.json").write_text("{}")
    write_checksums(folder)
    return folder


@pytest.fixture
def folder(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(model, tmp_path / "model")


def load(folder):
    load_model(str(folder), torch.device("cpu"), torch.float32)


def load_all(folder):
    load_tokenizer(str(folder))
    load(folder)


def read_run(folder):
    finished_stages(folder)
    plot_runs([folder], folder / "out.svg")
    write_report(folder)


def lock(folder):
    with run_lock(folder):
        pass


FEW = ("pipe", "device", "sparse", "folder", "deep")
CASES = [
    *((name, load_all, KINDS) for name in ("config.json", "model.safetensors.index.json")),
    *((name, load_all, KINDS) for name in ("tokenizer.json", "generation_config.json")),
    ("model-00001-of-00001.safetensors", load, (*FEW, "dangling")),
    ("SHA256SUMS", verify_checksums, FEW),
    ("adapter_config.json", chain, [kind for kind in KINDS if kind not in ("dangling", "loop")]),
    *((name, read_run, (*FEW, "loop")) for name in ("eval.json", "config.yaml", "stages.json")),
    ("metrics.jsonl", read_run, (*FEW[:-1], "loop")),  # a deep line is skipped
    (".lock", lock, ("pipe", "device", "folder")),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "use", "kind"), [(name, use, kind) for name, use, kinds in CASES for kind in kinds]
)
def test_special_files(name, use, kind, folder):
    if use is read_run:
        write(folder, whole_run())
    (folder / name).unlink(missing_ok=True)
    KINDS[kind](folder / name)
    begun = time.monotonic()
    with pytest.raises(UserError, match=name.replace(".", r"\.")) as error, no_hang(20):
        use(folder)
    assert time.monotonic() - begun < 30
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("num_labels", value) for value in (10**9, 10**12, 1e12, float("inf"), float("nan"))),
        *((name, 10**9) for name in ("n_layers", "num_hidden_layers", "vocab_size", "n_heads")),
        *((name, 10**12) for name in ("d_model", "mlp_hidden_size", "max_sequence_length")),
    ],
)
def test_numbers_of_a_configuration(name, value, folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {name: value}))
    with no_hang(20), pytest.raises(UserError):
        load(folder)
