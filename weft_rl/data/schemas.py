"""The schemas that cold-start records come in, recognised by their columns.

An s1K record: {"question": "What is 2+3?", "thinking_trajectories": ["Add."], "attempt": "5"}.
One of Mixture-of-Thoughts: {"messages": [{"role": "user", "content": "What is 2+3?"},
{"role": "assistant", "content": "<think>Add.</think>5"}], "num_tokens": 9, "source": "made up"}.
A chat record has `messages` alone."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from weft_rl.config.options import shown
from weft_rl.data.values import as_list, check_unicode, is_missing

_ROLES = ("system", "user", "assistant")
_THOUGHT = re.compile(r"\s*<think>(.*?)</think>(.*)", re.DOTALL)


@dataclass(frozen=True)
class Trace:
    """One question with its reasoning and answer."""

    question: str
    reasoning: str | None  # None: a chat, whose answer stands without tags
    answer: str
    source: str  # file:line, or how it was generated; named when something is wrong with it
    history: tuple[tuple[str, str], ...] = ()  # role and content of the turns before the question
    num_tokens: int | None = None  # as the data set counts them, with a tokenizer of its own


def trace_of(row: Mapping[str, Any], source: str) -> Trace:
    """A record of any of the schemas as a trace.

    Raises ValueError saying what is wrong: columns of no schema (which are named), a text that is
    missing, empty or no Unicode, a conversation that does not end with an answer."""
    fitting: list[Callable[[Mapping[str, Any]], Trace]] = []
    for columns, parse in _SCHEMAS.values():
        if row.keys() >= columns:
            fitting.append(parse)
            # data sets that were put together have the columns of all, empty where another's
            if not any(is_missing(row[column]) for column in columns - {"num_tokens"}):
                return replace(parse(row), source=source)
    if not fitting:
        known = "; ".join(f"{name}: {', '.join(sorted(c))}" for name, (c, _) in _SCHEMAS.items())
        raise ValueError(f"columns {shown([*row])} fit no schema ({known})")
    return replace(fitting[0](row), source=source)


def _s1k(row: Mapping[str, Any]) -> Trace:
    name = "thinking_trajectories"
    texts = as_list(row[name])
    # the first, as d1 does; every record of s1K has one
    first = texts[0] if isinstance(texts, list) and texts else None
    reasoning = _text(f"{name} (a list of texts)", first)
    return Trace(
        _text("question", row["question"]), reasoning, _text("attempt", row["attempt"]), ""
    )


def _s1k_1_1(row: Mapping[str, Any]) -> Trace:
    names = ("question", "deepseek_thinking_trajectory", "deepseek_attempt")
    question, reasoning, answer = (_text(name, row[name]) for name in names)
    return Trace(question, reasoning, answer, "")


def _mixture_of_thoughts(row: Mapping[str, Any]) -> Trace:
    trace, count = _chat(row), _whole(row["num_tokens"])
    if not trace.answer.startswith("<think>"):  # a chat whose tokens were counted
        return replace(trace, num_tokens=count if type(count) is int else None)
    if not isinstance(count, int) or isinstance(count, bool):
        raise ValueError(f"num_tokens must be a whole number, got {shown(count)}")
    parts = _THOUGHT.fullmatch(trace.answer)
    if parts is None:
        raise ValueError("the assistant's last message must be <think>...</think> and an answer")
    reasoning = _text("the text between <think> and </think>", parts[1].strip())
    answer = _text("the answer after </think>", parts[2].strip())
    return replace(trace, reasoning=reasoning, answer=answer, num_tokens=count)


def _whole(value: object) -> object:
    """A count, also where missing ones made floats of a column; all else as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _chat(row: Mapping[str, Any]) -> Trace:
    turns = [_turn(message) for message in _messages(row["messages"])]
    roles = [role for role, _ in turns]
    if roles[-2:] != ["user", "assistant"]:
        raise ValueError(
            f"messages must end with user and assistant, got {shown(roles[-2:])}: there is no "
            "answer to train on"
        )
    # content is stripped as the chat template does it for the other turns
    return Trace(turns[-2][1], None, turns[-1][1].strip(), "", tuple(turns[:-2]))


def _messages(value: object) -> list[Any]:
    value = as_list(value)
    if not isinstance(value, list):
        raise ValueError(f"messages must be a list, got {shown(value)}")
    return value


def _turn(message: object) -> tuple[str, str]:
    if not isinstance(message, Mapping):
        raise ValueError(f"a message must have role and content, got {shown(message)}")
    role = message.get("role")
    if role not in _ROLES:
        raise ValueError(f"role must be one of {', '.join(_ROLES)}, got {shown(role)}")
    return str(role), _text(f"content of a message of the {role}", message.get("content"))


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} must be a text that is not empty, got {shown(value)!r}")
    check_unicode(name, value)
    return value


# More particular schemas first: a Mixture-of-Thoughts record is a chat as well.
_SCHEMAS: dict[str, tuple[frozenset[str], Callable[[Mapping[str, Any]], Trace]]] = {
    "s1K": (frozenset({"question", "thinking_trajectories", "attempt"}), _s1k),
    "s1K-1.1": (
        frozenset({"question", "deepseek_thinking_trajectory", "deepseek_attempt"}),
        _s1k_1_1,
    ),
    "Mixture-of-Thoughts": (frozenset({"messages", "num_tokens"}), _mixture_of_thoughts),
    "chat": (frozenset({"messages"}), _chat),
}

# What is read of a data set's columns.
COLUMNS = frozenset(
    {"id", "num_tokens", "messages.role", "messages.content"}.union(
        *(columns for columns, _ in _SCHEMAS.values())
    )
    - {"messages"}
)
