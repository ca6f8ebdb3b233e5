"""Task registries, and the example task of examples/own_task.py."""

from contextlib import contextmanager
from pathlib import Path

import pytest

from weft_rl.data.tasks import REGISTRY
from weft_rl.rewards.registry import REWARDS

EXAMPLE = (Path(__file__).parents[2] / "examples" / "own_task.py").read_text(encoding="utf-8")


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
