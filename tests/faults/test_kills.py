"""A run of the cold start and RL, killed at random moments while its clock jumps."""

import pytest
from harm import jump_clock
from kills import kill_and_go_on, whole

# Each seed is another choice of moments; benchmarks/soak.py goes through a hundred.
SEED = 3


@pytest.mark.slow
def test_a_killed_run_writes_the_files_of_one_that_nobody_killed(tmp_path):
    unharmed = whole("weft, rl", tmp_path)
    assert len(unharmed.files) > 30
    killed = kill_and_go_on("weft, rl", SEED, unharmed, tmp_path, prepare=jump_clock)
    assert killed.kills > 0, killed.moments
    assert killed.wrong == [], (SEED, killed.moments)
