"""Exit statuses and what stands on standard error; processes are real where it matters."""

import errno
import os
import signal
import subprocess
import sys
import time

import pytest

from weft_rl.__main__ import COMMANDS, main
from weft_rl.cli import execute
from weft_rl.errors import Interrupted, UserError


def raising(error):
    def body(argv):
        raise error

    return body


def python(code, **options):
    return subprocess.run(
        [sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, check=False, **options
    )


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UserError("seed=x: must be\n a number"), 2, "it: seed=x: must be a number\n"),
        (Interrupted("stopped after step 3"), 3, "it: stopped after step 3\n"),
        (KeyboardInterrupt(), 3, "it: interrupted; repeat the command to resume\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/r/a"),
            3,
            "it: the disk is full (/r/a); free space and repeat the command\n",
        ),
    ],
)
def test_statuses(error, status, line, capsys):
    assert execute("it", raising(error), []) == status
    assert capsys.readouterr().err == line


@pytest.mark.parametrize(
    "error",
    [ValueError("x"), OSError(errno.EACCES, "x"), BrokenPipeError(errno.EPIPE, "a worker's")],
)
def test_bugs_keep_their_traceback(error):
    with pytest.raises(type(error)):
        execute("it", raising(error), [])


def test_arguments_and_status_pass_through():
    assert execute("it", len, ["a", "b"]) == 2


def test_sigterm_interrupts(capsys):
    def body(argv):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)
        return 0

    before = signal.getsignal(signal.SIGTERM)
    assert execute("it", body, []) == 3
    assert "interrupted" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


MAIN = "import sys; from weft_rl.__main__ import main; sys.exit(main([]))"


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_left_and_a_full_disk(unbuffered):
    env = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    reader, writer = os.pipe()
    os.close(reader)
    done = python(MAIN, stdout=writer, env=env)
    os.close(writer)
    assert (done.returncode, done.stderr) == (3, "")
    with open("/dev/full", "w") as full:
        done = python(MAIN, stdout=full, env=env)
    assert done.returncode == 3
    assert done.stderr == "weft-rl: the disk is full; free space and repeat the command\n"


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
def test_list_of_commands(argv, capsys):
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in COMMANDS)


@pytest.mark.parametrize(("word", "near"), [("rnu", "run"), ("seed=3", "score"), ("", "run")])
def test_unknown_command(word, near, capsys):
    assert main([word]) == 2
    line = capsys.readouterr().err
    assert line.startswith(f"weft-rl: {word or repr('')}: ")
    assert near in line
    assert line.count("\n") == 1


def test_a_command_gets_its_arguments(tmp_path, monkeypatch, capsys):
    code = "from weft_rl.errors import UserError\ndef main(argv): raise UserError(f'{argv}')\n"
    (tmp_path / "echoing.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(COMMANDS, "echo", ("echoing", "says what it is given"))
    assert main(["echo", "a=1", "b"]) == 2
    assert capsys.readouterr().err == "weft-rl echo: ['a=1', 'b']\n"


ASK = """
import sys
from weft_rl.__main__ import main
try:
    status = main(sys.argv[1:])
except SystemExit as done:
    status = done.code
heavy = {"torch", "transformers", "trl"} & set(sys.modules)
sys.exit(f"imported {heavy}" if heavy else status)
"""


LLADA = ("model=llada_8b", "hardware=rtx4090", "stages=[weft]")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("argv", "status", "texts"),
    [
        *(([name, "--help"], 0, ("usage: python -m weft_rl.",)) for name in COMMANDS),
        (["run", "--print-config"], 0, ("model: tiny",)),
        (["run", "rl.max_step=3"], 2, ("weft-rl run: rl.max_step=3: ", "rl.max_steps")),
        (["plan", *LLADA], 0, ("8,015,581,184", "100,663,296")),
    ],
)
def test_commands_without_torch(argv, status, texts):
    done = subprocess.run(
        [sys.executable, "-c", ASK, *argv], capture_output=True, text=True, check=False
    )
    assert done.returncode == status
    text, other = (done.stderr, done.stdout) if status else (done.stdout, done.stderr)
    assert other == ""
    assert all(each in text for each in texts)


@pytest.mark.slow
def test_the_help_of_a_run_loads_no_http_client():
    """Loading one took a fifth of the second in which --help answers."""
    code = ASK.replace('{"torch", ', '{"httpx", "httpx2", "requests", "torch", ')
    done = subprocess.run(
        [sys.executable, "-c", code, "run", "--help"], capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
