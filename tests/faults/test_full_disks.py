"""A disk that is full in the middle of any writer: status 3 and one line, as for any full disk."""

import errno
import os

import pyarrow
import pytest
import torch
from damaged_runs import whole_run, write
from datasets import Dataset
from disks import small_disk
from peft import LoraConfig, get_peft_model
from pipeline_runs import SMALL, cache  # noqa: F401 - a fixture
from pyarrow import parquet
from safetensors.torch import save_file
from upstream_checkpoint import llada_folder

from weft_rl.cli import execute
from weft_rl.convert import main as convert
from weft_rl.errors import UserError
from weft_rl.models.toy import tiny_tokenizer
from weft_rl.pipeline.run import main as run
from weft_rl.plot.__main__ import main as plot
from weft_rl.report.__main__ import main as report
from weft_rl.runs.atomic_io import write_bytes, write_json
from weft_rl.runs.jsonl import append_line

BIG = torch.zeros(300_000)


def raise_(error):
    raise error


def adapter(path):
    model = torch.nn.Sequential(torch.nn.Linear(512, 512))
    get_peft_model(model, LoraConfig(r=256, target_modules=["0"])).save_pretrained(path)


def old_optimizer(path):
    torch.save(BIG, path, _use_new_zipfile_serialization=False)


NUMBERS = {"a": list(range(200_000))}
WRITERS = {
    "model.safetensors": lambda path: save_file({"a": BIG}, path),
    "adapter": adapter,
    "optimizer.pt": lambda path: torch.save({"a": BIG}, path),
    "old_optimizer.pt": old_optimizer,
    "tokenizer": lambda path: tiny_tokenizer().save_pretrained(path),
    "metrics.jsonl": lambda path: append_line(path, {"a": "x" * 10**6}),
    "eval.json": lambda path: write_json(path, ["x" * 10**6]),
    "completions.jsonl": lambda path: write_bytes(path, b"x" * 10**6),
    "a.parquet": lambda path: parquet.write_table(pyarrow.table(NUMBERS), path),
    "data": lambda path: Dataset.from_dict(NUMBERS).save_to_disk(path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_writers(name, tmp_path, capfd):
    with small_disk(tmp_path / "disk", 8) as disk:
        assert execute("it", lambda argv: WRITERS[name](disk / name) or 0, []) == 3
    assert "it: the disk is full" in capfd.readouterr().err.splitlines()[-1]


@pytest.mark.slow
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


@pytest.mark.parametrize(
    "text",
    [
        "open file failed with strerror: No space left on device",
        "Error while serializing: I/O error: No space left on device (os error 28)",
        "[enforce fail at inline_container.cc:672] . unexpected pos 768 vs 726",
        "PytorchStreamWriter failed writing file data/0: file write failed",
        *("Disk quota exceeded", "database or disk is full"),
    ],
)
def test_errors_of_libraries(text, capsys):
    chained = ValueError("could not save")
    chained.__cause__ = RuntimeError(text)
    # a mistake made of a full disk is one too
    mistake = UserError("out=/m: cannot be written; choose another")
    mistake.__cause__ = OSError(errno.ENOSPC, text, "/m/a")
    for error in (RuntimeError(text), Exception(text), OSError(text), chained, mistake):
        assert execute("it", lambda argv, error=error: raise_(error), []) == 3
        err = capsys.readouterr().err
        assert err.startswith("it: the disk is full")
        assert err.count("\n") == 1
    assert "/m/a" in err


def test_other_errors_are_not_full_disks():
    assert execute("it", lambda argv: raise_(UserError("a/No space left on device/b")), []) == 2
    for error in (RuntimeError("device"), OSError(errno.EIO, "Input/output error")):
        with pytest.raises(type(error)):
            execute("it", lambda argv, error=error: raise_(error), [])


@pytest.mark.slow
def test_a_run_without_out_names_its_directory(tmp_path, monkeypatch, capsys, cache):  # noqa: F811
    monkeypatch.chdir(tmp_path)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("weft_rl.stages.evaluate.run", full)
    assert execute("it", run, [*SMALL, "stages=[base]"]) == 3
    (folder,) = (tmp_path / "runs").iterdir()
    assert f"out=runs/{folder.name}" in capsys.readouterr().err
