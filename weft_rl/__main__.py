"""`weft-rl COMMAND ...`, also `python -m weft_rl COMMAND ...`: picks a command by name."""

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module

from weft_rl.cli import execute
from weft_rl.config.fields import shown
from weft_rl.errors import UserError

# Name -> module, and what it does.
COMMANDS = {
    "run": ("weft_rl.pipeline.run", "train and evaluate: the stages in order, on one run folder"),
    "compare": (
        "weft_rl.compare.command",
        "several cold starts, each with RL after it, paired over seeds",
    ),
    "reproduce": (
        "weft_rl.reproduce.command",
        "the paper's tables and figures, beside its numbers",
    ),
    "plot": ("weft_rl.plot.command", "reward curves of one or more runs"),
    "report": ("weft_rl.report.run_page", "the HTML report of a run or a comparison"),
    "score": ("weft_rl.score", "score saved generations"),
    "sample": ("weft_rl.sample", "generate from a checkpoint"),
    "plan": ("weft_rl.plan.command", "what a run will need: memory by part, time"),
    "convert": ("weft_rl.convert", "a checkpoint from one layout to another"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the first argument names; returns its exit status."""
    words = sys.argv[1:] if argv is None else argv
    if words and words[0] in COMMANDS:
        module, _ = COMMANDS[words[0]]

        # a command is imported once it is asked for: some of them need torch
        def body(rest: Sequence[str]) -> int:
            return import_module(module).main(rest)

        return execute(f"weft-rl {words[0]}", body, words[1:])
    return execute("weft-rl", _list_commands, words)


def _list_commands(words: Sequence[str]) -> int:
    if words and words[0] not in ("--help", "-h"):
        near = get_close_matches(words[0][:100], COMMANDS, 1)
        cure = f"did you mean {near[0]}?" if near else f"there are {', '.join(COMMANDS)}"
        raise UserError(f"{shown(words[0]) or repr('')}: no such command; {cure}")
    lines = [f"  {name:<9} {about}" for name, (_, about) in COMMANDS.items()]
    head = ["usage: weft-rl COMMAND key=value ...", ""]
    tail = ["", "weft-rl COMMAND --help lists a command's options", ""]
    sys.stdout.write("\n".join([*head, *lines, *tail]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
