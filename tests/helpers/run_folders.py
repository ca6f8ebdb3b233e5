"""Hand-written files of run directories, for the tests of their readers."""

import json

PUZZLE, SOLUTION = "4320004330100004", "4321124334122134"

# Options that shorten base, cold start and RL to a few seconds.
SMALL = [
    *("base.max_steps=5", "base.batch_size=8", "base.examples=50", "rl.max_steps=2"),
    *("rl.num_prompts=2", "rl.num_generations=2", "cold_start.records=8", "cold_start.epochs=1"),
    *("eval.num_records=4", "device=cpu"),
]


def completion(stage, text, *, task="sudoku", **others):
    row = {"stage": stage, "step": 0, "id": "test-0-1", "task": task, "prompt": "Sudoku: 4320"}
    fields = {"puzzle": PUZZLE, "solution": SOLUTION}
    return row | {"completion": text, "reward": 0.75, "fields": fields} | others


def write_lines(path, rows):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read_lines(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def flip(path):
    """Another bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def written(path, content):
    """The path, with a text or bytes in it."""
    text = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    path.write_bytes(text)
    return path
