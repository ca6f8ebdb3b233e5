"""What the small model is trained on: word problems and grids in plain English, all generated.

As in the tiny world, pretraining shows a careless way with Sudokus, other grids that show what
columns and boxes are, and mostly no answer tags; the cold start holds no Sudoku. The format, and
then to heed columns and boxes in a Sudoku, are left to learn."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from weft_rl.data.prompts import tagged_answer, task_prompt, trace_prompt
from weft_rl.data.sudoku import generate
from weft_rl.data.toy.grids import (
    BLANKS,
    bands_grid,
    blanked,
    careless_solution,
    latin_grid,
    stacks_grid,
)
from weft_rl.data.trace_schemas import Trace, trace_of
from weft_rl.seeding import seed_for

Rng = np.random.Generator

# Share of pretraining answers without tags, as in the tiny world.
_PLAIN = 0.7
_PRETRAINING_MIX = {"sudoku": 0.3, "latin": 0.1, "bands": 0.15, "stacks": 0.15, "words": 0.3}
# The other grids, and what is said of their rules.
_GRIDS: Mapping[str, tuple[Callable[[Rng], str], str]] = {
    "latin": (latin_grid, "row and each column"),
    "bands": (bands_grid, "row and each 2x2 box"),
    "stacks": (stacks_grid, "column and each 2x2 box"),
}
_MOST = 60  # of a thing at the start of a story

_NAMES = (
    *("Mia", "Tom", "Ana", "Ben", "Lena", "Omar", "Priya", "Jack", "Sofia", "Noah", "Ruth"),
    *("Carlos", "Emma", "Li", "Sam", "Nina", "Paul", "Zoe", "Ivan", "Grace"),
)
_THINGS = (
    *("apples", "marbles", "stickers", "books", "coins", "pencils", "cards", "shells"),
    *("cookies", "flowers", "buttons", "eggs", "stamps", "toys", "candles", "stones"),
)


class Event(NamedTuple):
    """What happens in a story: a sentence, the sum in words, and the new number."""

    told: str
    sum: str
    after: int


def _gain(name: str, things: str, have: int, rng: Rng) -> Event:
    number = int(rng.integers(2, 31))
    verb = ("buys", "finds", "is given", "makes")[rng.integers(4)]
    told = f"{name} {verb} {number} more {things}."
    return Event(told, f"{have} + {number} = {have + number}", have + number)


def _loss(name: str, things: str, have: int, rng: Rng) -> Event:
    if have < 3:
        return _gain(name, things, have, rng)
    number = int(rng.integers(1, have))
    friend = _NAMES[rng.integers(len(_NAMES))]
    friend = friend if friend != name else "a friend"
    ways = (f"gives {number} of them to {friend}", f"loses {number} of them", f"sells {number}")
    told = f"{name} {ways[rng.integers(3)]}."
    return Event(told, f"{have} - {number} = {have - number}", have - number)


def _times(name: str, things: str, have: int, rng: Rng) -> Event:
    if have > _MOST:
        return _loss(name, things, have, rng)
    number = int(rng.integers(2, 5))
    word = {2: "twice", 3: "three times", 4: "four times"}[number]
    told = f"A week later {name} has {word} as many {things}."
    return Event(told, f"{have} * {number} = {have * number}", have * number)


def _share(name: str, things: str, have: int, rng: Rng) -> Event:
    parts = [number for number in range(2, 7) if have > number and have % number == 0]
    if not parts:
        return _gain(name, things, have, rng)
    number = parts[rng.integers(len(parts))]
    told = f"{name} shares the {things} equally among {number} bags and keeps one bag."
    return Event(told, f"{have} / {number} = {have // number}", have // number)


_EVENTS: Sequence[Callable[[str, str, int, Rng], Event]] = (_gain, _loss, _times, _share)


def word_problem(rng: Rng) -> dict[str, Any]:
    """A problem of two to four steps in s1K's schema, worked like GSM8K's."""
    name, things = _NAMES[rng.integers(len(_NAMES))], _THINGS[rng.integers(len(_THINGS))]
    have = int(rng.integers(2, _MOST + 1))
    told, worked = [f"{name} has {have} {things}."], [f"At first there are {have} {things}."]
    for _ in range(rng.integers(2, 5)):
        event = _EVENTS[int(rng.integers(len(_EVENTS)))](name, things, have, rng)
        told.append(event.told)
        worked.append(f"Then {event.sum}.")
        have = event.after
    question = " ".join([*told, f"How many {things} does {name} have now?"])
    return {
        "question": question,
        "thinking_trajectories": [" ".join(worked)],
        "attempt": str(have),
        "solution": str(have),
        "cot_type": "math",
        "source_type": "generated",
        "metadata": "{}",
    }


def small_traces(count: int, seed: int) -> list[Trace]:
    """Word problems with their reasoning, the small world's s1K; the i-th depends on (seed, i)."""
    return [
        trace_of(word_problem(_rng(seed, "small trace", i)), f"generated:{i}") for i in range(count)
    ]


def _rng(seed: int, purpose: str, index: int) -> Rng:
    return np.random.default_rng(seed_for(seed, purpose, index))


def _told_grid(grid: str, answer: str) -> str:
    """The grid as it is and as it becomes, each whole.

    So a digit is as far from the one that it copies as all others are, here and in the prompt,
    and rotary positions need to learn one distance. Told row by row, with a distance for each row,
    clues had not been copied after 2,112 steps; told like this, a narrow network learns to copy
    them (docs/measurements.md)."""
    return f"The grid is {grid}, so the rows are {answer}."


def _grid_example(kind: str, puzzle: Mapping[str, Any], rng: Rng) -> tuple[str, str, str]:
    """Prompt, reasoning and answer. All prompts end alike: with the grid and a line's end."""
    if kind == "sudoku":
        grid = str(puzzle["puzzle"])
        prompt, answer = task_prompt("d1", "sudoku", puzzle), careless_solution(grid, rng)
    else:
        draw, rule = _GRIDS[kind]
        answer = draw(rng)
        grid = blanked(answer, rng)
        question = f"Fill the 4x4 grid so that each {rule} holds the digits 1-4 once: {grid}\n"
        prompt = trace_prompt("d1", question)
    return prompt, _told_grid(grid, answer), answer


def small_texts(count: int, seed: int) -> list[tuple[str, str]]:
    """Prompt and completion of `count` pretraining examples; the i-th depends on (seed, i) only."""
    puzzles = generate("train", count, seed, blanks=(BLANKS, BLANKS))
    texts = []
    for i, record in enumerate(puzzles):
        rng = _rng(seed, "small pretraining", i)
        kind = rng.choice(list(_PRETRAINING_MIX), p=list(_PRETRAINING_MIX.values()))
        if kind == "words":
            row = word_problem(rng)
            prompt, answer = trace_prompt("d1", row["question"]), row["attempt"]
            reasoning = row["thinking_trajectories"][0]
        else:
            prompt, reasoning, answer = _grid_example(kind, record.fields, rng)
        plain = rng.random() < _PLAIN
        text = f"{reasoning} {answer}" if plain else tagged_answer("d1", reasoning, answer)
        texts.append((prompt, text))
    return texts
