"""The schemas that cold-start records come in, recognised by their columns.

An s1K record: {"question": "What is 2+3?", "thinking_trajectories": ["Add."], "attempt": "5"}.
A chat: {"messages": [{"role": "user", "content": "What is 2+3?"},
{"role": "assistant", "content": "<think>Add.</think>5"}]}; Mixture-of-Thoughts is chats as well.
ShareGPT's: {"conversations": [{"from": "human", "value": "What is 2+3?"}, ...]}."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from weft_rl.config.fields import shown
from weft_rl.data.values import as_list, check_unicode, is_missing

# What becomes of <think>...</think> at the start of an answer: our tags, or text as any other.
Think = Literal["rewrite", "keep"]
# Which of the assistant's turns are trained on.
Turns = Literal["last", "all"]

_ROLES = ("system", "user", "assistant")
_ALIASES = {"human": "user", "gpt": "assistant"}  # ShareGPT's
# The columns of a message, a chat's before ShareGPT's; thoughts that stand beside the content.
_ROLE, _CONTENT = ("role", "from"), ("content", "value")
_BESIDE = ("reasoning_content", "thinking")
_CALLS = ("tool_calls", "function_call")
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
    think: Think | None = None  # what became of the <think>...</think> that the answer had


def trace_of(row: Mapping[str, Any], source: str, think: Think = "rewrite") -> Trace:
    """A record of any of the schemas as a trace, a chat's last answer as what is trained on.

    Raises ValueError saying what is wrong: columns of no schema (which are named), a text that is
    missing, empty or no Unicode, a conversation that does not end with an answer, a <think> to
    rewrite that is not closed, or empty, or without an answer after it."""
    fitting: list[Callable[[Mapping[str, Any]], Trace]] = []
    for columns, parse in _SCHEMAS.values():
        if row.keys() >= columns:
            fitting.append(parse)
            # data sets that were put together have the columns of all, empty where another's
            if not any(is_missing(row[column]) for column in columns):
                return replace(with_thought(parse(row), think), source=source)
    if not fitting:
        known = "; ".join(f"{name}: {', '.join(sorted(c))}" for name, (c, _) in _SCHEMAS.items())
        raise ValueError(f"columns {shown([*row])} fit no schema ({known})")
    return replace(with_thought(fitting[0](row), think), source=source)


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


def with_thought(trace: Trace, think: Think) -> Trace:
    """A chat's trace with the <think>...</think> of its answer, if any, as its reasoning.

    Raises ValueError for one that cannot be rewritten."""
    text = trace.answer
    # where a chat template opens the thought, the record has only its end
    if "<think>" not in text and text.count("</think>") == 1:
        text = f"<think>{text}"
    if trace.reasoning is not None or not text.lstrip().startswith("<think>"):
        return trace
    parts = _THOUGHT.fullmatch(text)
    if think == "keep":
        # not closed, or alone: text like any other
        if parts is None or not parts[2].strip():
            return trace
        return replace(trace, reasoning=parts[1], answer=parts[2], think=think)
    if parts is None:
        raise ValueError("the assistant's <think> is not closed by </think>")
    reasoning = _text("the text between <think> and </think>", parts[1].strip())
    answer = _text("the answer after </think>", parts[2].strip())
    return replace(trace, reasoning=reasoning, answer=answer, think=think)


def turns_of(trace: Trace, think: Think) -> Iterator[Trace]:
    """A trace for each answer to the user in a chat, the turns before it as they are written.

    Raises ValueError as with_thought, naming the turn."""
    for i, (role, content) in enumerate(trace.history):
        if role == "assistant" and i > 0 and trace.history[i - 1][0] == "user":
            question, source = trace.history[i - 1][1], f"{trace.source}, message {i + 1}"
            turn = Trace(question, None, content.strip(), source, trace.history[: i - 1])
            try:
                yield with_thought(turn, think)
            except ValueError as error:
                raise ValueError(f"message {i + 1}: {error}") from error
    yield trace


def _whole(value: object) -> object:
    """A count, also where missing ones made floats of a column; all else as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _chat(row: Mapping[str, Any]) -> Trace:
    shared = is_missing(row.get("messages")) and "conversations" in row
    name = "conversations" if shared else "messages"
    turns = [_turn(message) for message in _messages(name, row.get(name))]
    roles = [role for role, _ in turns]
    if roles[-2:] != ["user", "assistant"]:
        raise ValueError(
            f"{name} must end with user and assistant, got {shown(roles[-2:])}: there is no "
            "answer to train on"
        )
    count = _whole(row.get("num_tokens"))
    # content is stripped as the chat template does it for the other turns
    return Trace(
        turns[-2][1],
        None,
        turns[-1][1].strip(),
        "",
        tuple(turns[:-2]),
        count if isinstance(count, int) and not isinstance(count, bool) else None,
    )


def _messages(name: str, value: object) -> list[Any]:
    value = as_list(value)
    if not isinstance(value, list):
        raise ValueError(f"{name} must be a list, got {shown(value)}")
    return value


def _turn(message: object) -> tuple[str, str]:
    if not isinstance(message, Mapping):
        raise ValueError(f"a message must have role and content, got {shown(message)}")
    role, content, thought = (_first(message, names) for names in (_ROLE, _CONTENT, _BESIDE))
    role = _ALIASES.get(role, role) if isinstance(role, str) else role
    if role not in _ROLES:
        raise ValueError(f"role must be one of {', '.join(_ROLES)}, got {shown(role)}")
    if _first(message, _CALLS):
        raise ValueError(f"a message of the {role} calls a tool, which is not text to train on")
    text = _content(f"content of a message of the {role}", content)
    if thought is None:
        return str(role), text
    return str(role), f"<think>{_text('the reasoning of a message', thought)}</think>{text}"


def _first(message: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    """The first of some columns of a message that has a value."""
    return next((message[name] for name in names if not is_missing(message.get(name))), None)


def _content(name: str, value: object) -> str:
    """A text, or the texts of a list of parts, as chat templates join them."""
    if not isinstance(value, list):
        return _text(name, value)
    for part in value:
        kind = part.get("type") if isinstance(part, Mapping) else part
        if kind != "text" or not isinstance(part.get("text"), str):
            raise ValueError(f"{name} must be a text or parts of type text, got {shown(kind)}")
    return _text(name, "".join(part["text"] for part in value))


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} must be a text that is not empty, got {shown(value)!r}")
    check_unicode(name, value)
    return value


_SCHEMAS: dict[str, tuple[frozenset[str], Callable[[Mapping[str, Any]], Trace]]] = {
    "s1K": (frozenset({"question", "thinking_trajectories", "attempt"}), _s1k),
    "s1K-1.1": (
        frozenset({"question", "deepseek_thinking_trajectory", "deepseek_attempt"}),
        _s1k_1_1,
    ),
    "chat": (frozenset({"messages"}), _chat),
    "ShareGPT": (frozenset({"conversations"}), _chat),
}

# What is read of a data set's columns.
COLUMNS = frozenset(
    {"id", "num_tokens"}.union(
        *(columns for columns, _ in _SCHEMAS.values()),
        (
            f"{name}.{column}"
            for name in ("messages", "conversations")
            for column in (*_ROLE, *_CONTENT, *_BESIDE, *_CALLS)
        ),
    )
    - {"messages", "conversations"}
)
