"""Task registries, and the example task of docs/tasks.md."""

import re
from contextlib import contextmanager
from pathlib import Path

import pytest

from weft_rl.data.tasks import REGISTRY
from weft_rl.rewards.registry import REWARDS

PAGE = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text(encoding="utf-8")
EXAMPLE = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1]


@contextmanager
def restored_registries():
    """Forget the tasks that the block has loaded."""
    kept = [(table, dict(table)) for table in (REWARDS, REGISTRY)]
    yield
    for table, content in kept:
        table.clear()
        table.update(content)


@pytest.fixture(autouse=True)
def registries():
    """Forgets the tasks that a test has loaded; for the modules that import it."""
    with restored_registries():
        yield
