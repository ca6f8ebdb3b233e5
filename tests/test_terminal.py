"""Untrusted text in everything that a command prints: none of it acts on a terminal."""

import contextlib
import logging
import os
import pty
import re
import subprocess
import sys
import warnings

import pytest
from rich.table import Table
from rich.text import Text

from weft_rl.cli import execute
from weft_rl.errors import Interrupted, OutOfMemory, UserError
from weft_rl.io.terminal import Console, escape, one_line

ATTACKS = {
    "title": "\x1b]0;owned\x07",
    "clear": "\x1b[2J\x1b[H",
    "csi of one byte": "\x9b2J",
    "carriage return": "good\rbad",
    "null": "a\0b",
    "half a pair": "a\ud800b",
    "bidi override": "\u202egnp.exe",
    "bidi isolate": "\u2067abc\u2069",
    "marks": "\u200e\u200f\u061c",
    "line separators": "a\u2028b\u2029c\x85d\x0be\x0cf",
    "backspace": "rm\b\b\x7f",
    "markup": "[red]a[/x][link=http://x]b",
}
ALLOWED = re.compile(r"[^\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]*")
READABLE = "naïve Größe 数独 ✓ 😀 👩\u200d🔬 नमस्\u200dते a\tb"


def is_safe(text):
    text.encode()  # no half of a surrogate pair
    return ALLOWED.fullmatch(text) is not None


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_whatever_a_command_prints_is_safe(attack, capsys):
    def body(argv):
        sys.stdout.write(f"{attack}\n")
        sys.stderr.writelines([f"a {attack}\n"])
        print(attack, attack, file=sys.stderr)
        warnings.warn(f"a {attack}", stacklevel=1)
        handler = logging.StreamHandler()
        handler.emit(logging.LogRecord("n", 30, "p", 1, "%s", (attack,), None))
        table = Table("name", title=attack)
        table.add_row(attack)
        Console().print(table)
        Console(stderr=True).print(attack, Text(attack), soft_wrap=True)
        return 0

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *_: sys.stderr.write(f"{message}\n")
        assert execute("it", body, []) == 0
    captured = capsys.readouterr()
    assert is_safe(captured.out)
    assert is_safe(captured.err)
    # nothing is dropped: what acts on a terminal is there as its escape
    assert captured.err.count(escape(attack).splitlines()[0]) >= 6
    for error in (UserError, Interrupted, OutOfMemory):
        assert execute("it", lambda _, e=error: _raise(e(f"a/{attack}\n{attack}: b")), []) > 0
        message = capsys.readouterr().err
        assert is_safe(message)
        assert message.count("\n") == 1 == len(message.splitlines())


def _raise(error):
    raise error


def test_text_of_any_script_stays(capsys):
    def body(argv):
        print(READABLE)
        Console(width=100).print(READABLE.replace("\t", " "))
        raise UserError(READABLE)

    before = sys.stdout, sys.stderr
    assert execute("it", body, []) == 2
    with pytest.raises(SystemExit):
        execute("it", lambda argv: _raise(SystemExit(0)), [])
    assert (sys.stdout, sys.stderr) == before  # the streams are given back
    captured = capsys.readouterr()
    assert captured.out == f"{READABLE}\n{READABLE.replace(chr(9), ' ')}\n"
    assert captured.err == f"it: {READABLE.replace(chr(9), ' ')}\n"
    assert escape("\x1b[2J\r\0\ud800\u202e\x85") == r"\x1b[2J\r\x00\ud800\u202e\x85"
    assert escape("a\n\tb\\") == "a\n\tb\\"
    assert one_line("a\n b\r\u2028c ") == r"a b\r\u2028c"


PROGRAM = """
import sys
from weft_rl.cli import execute
from weft_rl.io.terminal import Console
def body(argv):
    {}
    return 0
sys.exit(execute("it", body, []))
"""


def test_a_traceback_in_an_encoding_without_the_character():
    code = r"print('数'); Console().print('数'); raise RuntimeError('\x1b[2J' + chr(0xd800) + '\r')"
    argv = [sys.executable, "-c", PROGRAM.format(code)]
    env = os.environ | {"PYTHONIOENCODING": "ascii:strict"}
    done = subprocess.run(argv, capture_output=True, check=False, env=env)
    assert (done.returncode, done.stdout.split()) == (1, [rb"\u6570", rb"\u6570"])
    assert rb"RuntimeError: \x1b[2J\ud800\r" in done.stderr
    assert is_safe(done.stderr.decode())


def on_terminal(code):
    ours, its = pty.openpty()
    command = [sys.executable, "-c", PROGRAM.format(code)]
    done = subprocess.Popen(command, stdout=its, stderr=its, stdin=its)
    os.close(its)
    sent = b""
    with contextlib.suppress(OSError):  # the other end is closed
        while part := os.read(ours, 65536):
            sent += part
    os.close(ours)
    assert done.wait() == 0
    return sent.decode()


def test_progress_bars_of_libraries_still_go_back_to_the_line_start():
    sent = on_terminal("import tqdm; [None for _ in tqdm.tqdm(range(3), ncols=60, nrows=9)]")
    assert "\r" in sent.replace("\r\n", "\n")
    assert r"\r" not in sent


def test_a_live_display_moves_the_cursor_and_its_text_does_not():
    sent = on_terminal(
        "from rich.live import Live\n"
        "    console = Console(stderr=True)\n"
        "    with Live('x\\x1b]0;owned\\x07', console=console, transient=True) as live:\n"
        "        live.refresh()\n"
        "        sys.stderr.write('a \\x1b]0;owned\\x07 b\\n'); print('c\\x9b2J')"
    )
    assert "\x1b]0" not in sent
    assert "\x9b" not in sent
    assert sent.count(r"\x1b]0;o") >= 2
    assert "\x1b[?25l" in sent  # rich hides the cursor meanwhile
