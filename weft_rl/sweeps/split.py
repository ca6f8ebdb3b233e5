"""Arguments of a command that starts runs: its own options, and those that every run gets."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from weft_rl.config.fields import leaves, shown
from weft_rl.config.schema import RunConfig
from weft_rl.errors import UserError


def split_words(
    argv: Sequence[str], schema: type[Any], set_here: Mapping[str, str]
) -> tuple[list[str], list[str]]:
    """The arguments for `schema`, and the others, which are runs'; flags and bare words are
    `schema`'s.

    set_here: options of a run that the command sets by itself, with what to do instead. Raises
    UserError for one of them."""
    own, words = [], []
    mine, of_run = leaves(schema), leaves(RunConfig)
    for word in argv:
        key, equals, _ = word.partition("=")
        if key in set_here and equals:
            raise UserError(f"{shown(word)}: {set_here[key]}")
        # a misspelt option of the command is told so, not that runs have no such option
        near = key not in of_run and get_close_matches(key[:100], mine, 1)
        (own if key in mine or near or not equals else words).append(word)
    return own, words
