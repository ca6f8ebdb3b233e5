"""`weft-rl COMMAND ...`, or `python -m weft_rl COMMAND ...`."""

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module

from weft_rl.cli import execute
from weft_rl.config.fields import shown
from weft_rl.errors import UserError

# Name -> module and description.
COMMANDS = {
    "run": ("weft_rl.pipeline.run", "train and evaluate: stages in order, in one run directory"),
    "compare": (
        "weft_rl.compare",
        "compare cold starts, each followed by RL, paired over seeds",
    ),
    "reproduce": (
        "weft_rl.reproduce.__main__",
        "tables and figures of the WeFT paper, beside its numbers",
    ),
    "plot": ("weft_rl.plot.__main__", "plot reward curves of runs"),
    "report": ("weft_rl.report.__main__", "write the HTML report of a run or a comparison"),
    "score": ("weft_rl.score", "score saved generations"),
    "sample": ("weft_rl.sample", "generate from a checkpoint"),
    "plan": ("weft_rl.plan.command", "estimate memory and time of a run"),
    "presets": ("weft_rl.config.presets", "list the presets of models and RL methods"),
    "verify": ("weft_rl.verify.command", "check a checkpoint; the text is for bug reports"),
    "convert": ("weft_rl.convert", "convert a checkpoint to another layout"),
    "push": ("weft_rl.push", "upload a model with its card to the Hub"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command named by the first argument; returns its exit status."""
    words = sys.argv[1:] if argv is None else argv
    if words and words[0] in COMMANDS:
        module, _ = COMMANDS[words[0]]

        # imported on demand: some commands need torch
        def body(rest: Sequence[str]) -> int:
            return import_module(module).main(rest)

        return execute(f"weft-rl {words[0]}", body, words[1:])
    return execute("weft-rl", _list_commands, words)


def _list_commands(words: Sequence[str]) -> int:
    if words and words[0] not in ("--help", "-h"):
        near = get_close_matches(words[0][:100], COMMANDS, 1)
        fix = f"did you mean {near[0]}?" if near else f"use {', '.join(COMMANDS)}"
        raise UserError(f"{shown(words[0]) or repr('')}: unknown command; {fix}")
    lines = [f"  {name:<9} {about}" for name, (_, about) in COMMANDS.items()]
    head = ["usage: weft-rl COMMAND key=value ...", ""]
    tail = ["", "weft-rl COMMAND --help lists the options of a command", ""]
    sys.stdout.write("\n".join([*head, *lines, *tail]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
