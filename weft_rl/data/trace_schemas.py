"""Schemas of cold-start records, recognized by their columns.

s1K: {"question": "What is 2+3?", "thinking_trajectories": ["Add."], "attempt": "5"}.
Chat: {"messages": [{"role": "user", "content": "What is 2+3?"}, ...]}; <think> marks reasoning.
ShareGPT: {"conversations": [{"from": "human", "value": "What is 2+3?"}, ...]}.
TRL: {"prompt": "What is 2+3?", "completion": "5"}, texts or lists of messages."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from weft_rl.config.fields import shown
from weft_rl.data.values import as_list, first_of, is_missing, plain_number, require_text

# Treatment of a leading <think>...</think>: our tags, or plain text.
Think = Literal["rewrite", "keep"]

_ROLES = ("system", "user", "assistant")
_ALIASES = {"human": "user", "gpt": "assistant"}  # ShareGPT roles
_PAIR = ("prompt", "completion")
_S1K_1_1 = ("question", "deepseek_thinking_trajectory", "deepseek_attempt")
# Message columns, chat before ShareGPT, and columns with separate thoughts.
_ROLE, _CONTENT = ("role", "from"), ("content", "value")
_THOUGHTS = ("reasoning_content", "thinking")
_CALLS = ("tool_calls", "function_call")
_THINK = re.compile(r"\s*<think>(.*?)</think>(.*)", re.DOTALL)


@dataclass(frozen=True)
class Trace:
    """A question with its reasoning and answer."""

    question: str
    reasoning: str | None  # None for a chat, whose answer has no tags
    answer: str
    source: str  # file:line or generator, for error messages
    history: tuple[tuple[str, str], ...] = ()  # (role, content) of the turns before the question
    num_tokens: int | None = None  # as counted by the data set, with its tokenizer
    think: Think | None = None  # how <think>...</think> of the answer was treated


def trace_of(row: Mapping[str, Any], source: str, think: Think = "rewrite") -> Trace:
    """Convert a record of any schema to a trace; the target of a chat is its last answer.

    Raises ValueError for unknown columns, for missing, empty or non-Unicode text, and for a chat
    without a final answer. Also for a <think> to rewrite that is unclosed, empty or without an
    answer."""
    fitting = [schema for schema in _SCHEMAS.values() if row.keys() >= schema[0]]
    if not fitting:
        known = "; ".join(f"{name}: {', '.join(sorted(c))}" for name, (c, _) in _SCHEMAS.items())
        raise ValueError(f"columns {shown([*row])} fit no schema ({known})")
    # concatenated data sets have all columns: those without empty ones first
    _, parse = min(fitting, key=lambda schema: any(is_missing(row[name]) for name in schema[0]))
    return replace(with_thought(parse(row), think), source=source)


def with_thought(trace: Trace, think: Think) -> Trace:
    """Move a chat answer's <think>...</think>, if any, to the reasoning, or raise ValueError."""
    text = trace.answer
    # if the chat template opens the thought, the record has only its end
    if "<think>" not in text and text.count("</think>") == 1:
        text = f"<think>{text}"
    if trace.reasoning is not None or not text.lstrip().startswith("<think>"):
        return trace
    parts = _THINK.fullmatch(text)
    if think == "keep":
        # unclosed or without an answer: plain text
        if parts is None or not parts[2].strip():
            return trace
        return replace(trace, reasoning=parts[1], answer=parts[2], think=think)
    if parts is None:
        raise ValueError("the assistant's <think> is not closed by </think>")
    reasoning = require_text("the text between <think> and </think>", parts[1].strip())
    answer = require_text("the answer after </think>", parts[2].strip())
    return replace(trace, reasoning=reasoning, answer=answer, think=think)


def with_system(trace: Trace, system: str | None) -> Trace:
    """Put a system message before a trace, unless there is none or it has its own."""
    if system is None or (trace.history and trace.history[0][0] == "system"):
        return trace
    return replace(trace, history=(("system", system), *trace.history))


def turns_of(trace: Trace, think: Think) -> Iterator[Trace]:
    """Yield a trace for each assistant turn of a chat. Raises ValueError naming the turn."""
    for i, (role, content) in enumerate(trace.history):
        if role == "assistant" and i > 0 and trace.history[i - 1][0] == "user":
            question, source = trace.history[i - 1][1], f"{trace.source}, message {i + 1}"
            turn = Trace(question, None, content.strip(), source, trace.history[: i - 1])
            try:
                yield with_thought(turn, think)
            except ValueError as error:
                raise ValueError(f"message {i + 1}: {error}") from error
    yield trace


def _s1k(row: Mapping[str, Any]) -> Trace:
    texts, name = as_list(row["thinking_trajectories"]), "thinking_trajectories (a list of texts)"
    # the first, as in d1; every s1K record has one
    first = texts[0] if isinstance(texts, list) and texts else None
    return _s1k_1_1({**row, name: first}, ("question", name, "attempt"))


def _s1k_1_1(row: Mapping[str, Any], names: tuple[str, ...] = _S1K_1_1) -> Trace:
    question, reasoning, answer = (require_text(name, row[name]) for name in names)
    return Trace(question, reasoning, answer, "")


def _chat(row: Mapping[str, Any]) -> Trace:
    is_shared = is_missing(row.get("messages")) and "conversations" in row
    name = "conversations" if is_shared else "messages"
    messages = as_list(row.get(name))
    if not isinstance(messages, list):
        raise ValueError(f"{name} must be a list, got {shown(messages)}")
    turns = [_turn(message) for message in messages]
    roles = [role for role, _ in turns]
    if roles[-2:] != ["user", "assistant"]:
        raise ValueError(
            f"{name} must end with user and assistant, got {shown(roles[-2:])}: there is no "
            "answer to train on"
        )
    count = plain_number(row.get("num_tokens"))  # missing values turn integers into floats
    num_tokens = int(count) if count.isdecimal() else None
    # chat templates strip the other turns
    answer = turns[-1][1].strip()
    return Trace(turns[-2][1], None, answer, "", tuple(turns[:-2]), num_tokens)


def _pair(row: Mapping[str, Any]) -> Trace:
    before, after = (as_list(row[name]) for name in _PAIR)
    if isinstance(before, list) and isinstance(after, list):
        messages = [*before, *after]
        if all(isinstance(message, Mapping) for message in messages):
            return _chat({"messages": messages})
    prompt, completion = (require_text(name, row[name]) for name in _PAIR)
    return Trace(prompt, None, completion.strip(), "")


def _turn(message: object) -> tuple[str, str]:
    if not isinstance(message, Mapping):
        raise ValueError(f"a message must have role and content, got {shown(message)}")
    role, content, thought = (first_of(message, *names) for names in (_ROLE, _CONTENT, _THOUGHTS))
    role = _ALIASES.get(role, role) if isinstance(role, str) else role
    if role not in _ROLES:
        raise ValueError(f"role must be one of {', '.join(_ROLES)}, got {shown(role)}")
    if first_of(message, *_CALLS):
        raise ValueError(f"a message of the {role} calls a tool, which is not text to train on")
    name = f"content of a message of the {role}"
    text = require_text(name, joined_parts(name, content))
    if thought is not None:
        text = f"<think>{require_text('the reasoning of a message', thought)}</think>{text}"
    return str(role), text


def joined_parts(name: str, content: Any) -> Any:
    """Join a list of text parts as chat templates do; other content is returned unchanged.

    Raises ValueError for parts that are not text."""
    if not isinstance(content, list):
        return content
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else part
        if kind != "text" or not isinstance(part.get("text"), str):
            raise ValueError(f"{name} must be a text or parts of type text, got {shown(kind)}")
    return "".join(part["text"] for part in content)


_SCHEMAS: dict[str, tuple[set[str], Callable[[Mapping[str, Any]], Trace]]] = {
    "s1K": ({"question", "thinking_trajectories", "attempt"}, _s1k),
    "s1K-1.1": ({*_S1K_1_1}, _s1k_1_1),
    "chat": ({"messages"}, _chat),
    "ShareGPT": ({"conversations"}, _chat),
    "TRL": ({*_PAIR}, _pair),
}
_PARTS = (*_ROLE, *_CONTENT, *_THOUGHTS, *_CALLS)
COLUMNS = frozenset(
    {"id", "num_tokens", *_S1K_1_1, *_SCHEMAS["s1K"][0]}
    | {f"{name}.{part}" for name in ("messages", "conversations", *_PAIR) for part in _PARTS}
)
