"""A disk that is full in the middle of any writer: status 3 and one line, as for any full disk."""

import errno
import os
import re
import subprocess
from contextlib import contextmanager

import pyarrow
import pytest
import torch
from damaged_runs import whole_run, write
from datasets import Dataset
from pipeline_runs import SMALL, cache  # noqa: F401 - a fixture
from pyarrow import parquet
from safetensors.torch import save_file
from upstream_checkpoint import llada_folder

from weft_rl.cli import execute
from weft_rl.convert import main as convert
from weft_rl.errors import UserError
from weft_rl.models.toy import tiny_tokenizer
from weft_rl.pipeline.run import main as run
from weft_rl.plot.command import main as plot
from weft_rl.report.run_page import main as report
from weft_rl.runs.atomic_io import write_bytes, write_json
from weft_rl.runs.jsonl import append_line

BIG = torch.zeros(300_000)


@contextmanager
def small_disk(folder, kib):
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "none", folder]
    if os.getuid() or subprocess.run(mount, check=False).returncode:
        pytest.skip("only root may mount a disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def _adapter(disk):
    from peft import LoraConfig, get_peft_model

    model = torch.nn.Sequential(torch.nn.Linear(512, 512))
    get_peft_model(model, LoraConfig(r=256, target_modules=["0"])).save_pretrained(disk / "adapter")


WRITERS = {
    "weights": lambda disk: save_file({"a": BIG}, disk / "model.safetensors"),
    "adapter": _adapter,
    "optimizer": lambda disk: torch.save({"a": BIG}, disk / "optimizer.pt"),
    "optimizer, old form": lambda disk: torch.save(
        BIG, disk / "optimizer.pt", _use_new_zipfile_serialization=False
    ),
    "tokenizer": lambda disk: tiny_tokenizer().save_pretrained(disk / "tokenizer"),
    "metrics": lambda disk: append_line(disk / "metrics.jsonl", {"a": "x" * 10**6}),
    "eval.json": lambda disk: write_json(disk / "eval.json", ["x" * 10**6]),
    "completions": lambda disk: write_bytes(disk / "completions.jsonl", b"x" * 10**6),
    "parquet": lambda disk: parquet.write_table(
        pyarrow.table({"a": list(range(200_000))}), disk / "a.parquet"
    ),
    "data set": lambda disk: Dataset.from_dict({"a": list(range(200_000))}).save_to_disk(
        disk / "data"
    ),
}


@pytest.mark.parametrize("name", WRITERS)
def test_writers(name, tmp_path, capfd):
    with small_disk(tmp_path / "disk", 8) as disk:
        assert execute("it", lambda argv: WRITERS[name](disk) or 0, []) == 3
    assert "it: the disk is full" in capfd.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("command", "name"), [(report, "report.html"), (plot, "curves.png"), (convert, "converted")]
)
def test_commands(command, name, tmp_path, capfd):
    with small_disk(tmp_path / "disk", 200) as disk:
        target = disk / name
        if command is convert:
            source, _ = llada_folder(tmp_path / "model")
            words = [str(source), f"out={target}", "to=transformers"]
        else:
            write(disk, whole_run())
            target.write_text("old")
            words = [str(disk)] + ([f"out={target}"] if command is plot else [])
        room = os.statvfs(disk)
        fill = max(0, room.f_bavail * room.f_frsize - 8192)
        (disk / "fill").write_bytes(b"x" * fill)
        assert execute("it", command, words) == 3
        assert command is convert or target.read_text() == "old"
    assert "it: the disk is full" in capfd.readouterr().err.splitlines()[-1]


def chained(text):
    try:
        raise RuntimeError(text)
    except RuntimeError as error:
        raise ValueError("could not save") from error


@pytest.mark.parametrize(
    "text",
    [
        "open file failed with strerror: No space left on device",
        "Error while serializing: I/O error: No space left on device (os error 28)",
        "[enforce fail at inline_container.cc:672] . unexpected pos 768 vs 726",
        "PytorchStreamWriter failed writing file data/0: file write failed",
        "Disk quota exceeded",
        "database or disk is full",
    ],
)
def test_errors_of_libraries(text, capsys):
    for error in (RuntimeError(text), Exception(text), OSError(text)):
        assert execute("it", lambda argv, error=error: _raise(error), []) == 3
    assert execute("it", lambda argv: chained(text), []) == 3
    err = capsys.readouterr().err
    assert len(re.findall("^it: the disk is full", err, re.MULTILINE)) == 4 == err.count("\n")


def _raise(error):
    raise error


def test_a_mistake_made_of_a_full_disk_is_a_full_disk(capsys):
    def body(argv):
        try:
            raise OSError(errno.ENOSPC, "No space left on device", "/m/a")
        except OSError as error:
            raise UserError("out=/m: cannot be written; choose another") from error

    assert execute("it", body, []) == 3
    assert "/m/a" in capsys.readouterr().err


def test_other_errors_are_not_full_disks():
    assert execute("it", lambda argv: _raise(UserError("a/No space left on device/b")), []) == 2
    for error in (RuntimeError("device"), OSError(errno.EIO, "Input/output error")):
        with pytest.raises(type(error)):
            execute("it", lambda argv, error=error: _raise(error), [])


def test_a_run_without_out_names_its_directory(tmp_path, monkeypatch, capsys, cache):  # noqa: F811
    monkeypatch.chdir(tmp_path)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("weft_rl.stages.evaluate.run", full)
    assert execute("it", run, [*SMALL, "stages=[base]"]) == 3
    (folder,) = (tmp_path / "runs").iterdir()
    assert f"out=runs/{folder.name}" in capsys.readouterr().err
