"""The wording of errors: the one place where it is asserted, in fixtures/messages.txt.

`UPDATE_GOLDEN=1 pytest tests/test_messages.py` rewrites the file; read the difference. For a new
case, append two lines: the arguments, and any text."""

import os
from pathlib import Path

import pytest

from weft_rl.cli import execute
from weft_rl.config.load import load_run_config
from weft_rl.errors import UserError

MESSAGES = Path(__file__).parent / "fixtures" / "messages.txt"
# Arguments of weft_rl.pipeline, each with one mistake; every second line is the message.
MISTAKES = MESSAGES.read_text(encoding="utf-8").splitlines()[::2]


def message(words):
    with pytest.raises(UserError) as caught:
        load_run_config(words.split(" "), command="it")
    return str(caught.value)


def test_wording():
    lines = [f"{words}\n    {message(words)}\n" for words in MISTAKES]
    if os.environ.get("UPDATE_GOLDEN"):
        MESSAGES.write_text("".join(lines), encoding="utf-8")
    assert "".join(lines) == MESSAGES.read_text(encoding="utf-8")


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_is_named_by_key_and_value(words, capsys):
    """The message begins with one of the arguments' keys, and the status is 2."""
    assert (
        execute(
            "it", lambda argv: int(load_run_config(argv, command="it") is None), words.split(" ")
        )
        == 2
    )
    (line,) = capsys.readouterr().err.splitlines()
    text = line.removeprefix("it: ")
    keys = [word.partition("=")[0] for word in words.split(" ")]
    # a mistake in two options together may name a third one, which has its default
    assert any(text.startswith(key) for key in keys) or "=" in text.split(":")[0]
