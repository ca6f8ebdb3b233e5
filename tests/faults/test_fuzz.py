"""Damaged and hostile inputs, some hundred of them: success or UserError, and nothing else."""

import pytest
from fuzz import fuzz
from fuzz_targets import targets

NAMES = (
    *("arguments", "config.yaml", "lines", "jsonl", "parquet", "records", "saved data set"),
    *("model", "adapter", "checksums", "stages.json"),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return targets(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_is_used_or_refused(made, name):
    assert tuple(made) == NAMES
    seen = fuzz(*made[name], count=10 if name == "config.yaml" else 40)
    assert seen["cases"] >= 10
