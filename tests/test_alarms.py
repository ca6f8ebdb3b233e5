"""Warnings of a run that goes wrong, from lines written by hand."""

from transformers import TrainerControl, TrainerState

from weft_rl.trainers.infra.callbacks import TrainingAlarms

GOOD = {"reward": 0.8, "frac_reward_zero_std": 0.2, "entropy": 0.5}


def said(capsys, *lines, first=True):
    """What is written of these lines, one rollout each."""
    alarms = TrainingAlarms("rl")
    state = TrainerState(is_world_process_zero=first)
    for step, line in enumerate(lines, 1):
        state.global_step = step
        alarms.on_log(None, state, TrainerControl(), logs=line)
    return capsys.readouterr().err.splitlines()


def test_nothing_to_say(capsys):
    assert said(capsys, *[GOOD] * 20, {"loss": 1.0}) == []
    # one bad rollout is none
    assert said(capsys, *[GOOD] * 9, GOOD | {"reward": 0.0}, *[GOOD] * 9) == []


def test_a_reward_that_falls(capsys):
    bad = GOOD | {"reward": 0.2}
    # means of five: (2 * 0.8 + 3 * 0.2) / 5 = 0.44, then 0.32, which is below half of 0.8
    (line,) = said(capsys, *[GOOD] * 5, *[bad] * 7)
    assert line.startswith("rl, step 9: the reward has fallen to 0.32 from 0.8; lower rl.learning")
    again = said(capsys, *[GOOD] * 5, *[bad] * 7, *[GOOD] * 5, *[bad] * 7)
    assert [words.split(":")[0] for words in again] == ["rl, step 9", "rl, step 21"]


def test_groups_that_teach_nothing_and_a_policy_without_choice(capsys):
    lines = said(
        capsys,
        *[GOOD] * 5,
        *[GOOD | {"frac_reward_zero_std": 0.95, "entropy": 0.01}] * 5,
    )
    assert "step 10: all rewards are equal in 95% of the groups" in lines[0]
    assert "step 10: the entropy has fallen to 0.01 from 0.5" in lines[1]
    assert len(lines) == 2


def test_one_process_speaks(capsys):
    assert said(capsys, *[GOOD] * 5, *[GOOD | {"reward": 0.0}] * 5, first=False) == []
