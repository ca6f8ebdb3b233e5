"""Directories with damaged values: report, plot and comparisons read them, or name the file."""

import json
import logging
import random
import time

import pytest
from damaged_runs import broken_text, mutated, text_of, whole_comparison, whole_run, write
from fuzz import no_hang

from weft_rl.errors import UserError
from weft_rl.evaluation.paired_runs import read_arm_run
from weft_rl.plot.command import plot_runs
from weft_rl.plot.curves import plot_run
from weft_rl.report.run_page import write_report
from weft_rl.runs.folder import finished_stages, read_config, read_results
from weft_rl.trainers.infra.callbacks import MetricsWriter

pytestmark = pytest.mark.slow
COUNT = 24  # thousands were tried while this was written
READERS = {
    "report": write_report,
    "plot of a run": lambda run: plot_run(run, run / "curves.png"),
    "plot": lambda run: plot_runs([run], run / "plot.svg"),
    "unit": lambda run: read_arm_run(run, "weft", 0, "sudoku"),
    "small readers": lambda run: (
        finished_stages(run), read_config(run), read_results(run), MetricsWriter(run, "rl")
    ),
}  # fmt: skip


def mistakes(whole, readers, folder, count, seed):
    """What raised anything but a UserError that names a file."""
    rng, wrong = random.Random(seed), []
    for _ in range(count):
        name = rng.choice([*whole])
        value = mutated(whole[name], rng)
        text = text_of(name, value) if rng.random() < 0.85 else broken_text(json.dumps(value), rng)
        # the quick readers more often
        reader = rng.choice([*readers, *list(readers)[-2:]])
        write(folder, whole, name, text)
        begun = time.process_time()
        try:
            with no_hang():
                readers[reader](folder)
        except UserError as error:
            if str(folder) not in str(error):
                wrong.append(f"{reader}: {name}: {text[:300]}: names no file: {error}")
        except Exception as error:  # noqa: BLE001 - whatever else is raised is what is looked for
            wrong.append(f"{reader}: {name}: {text[:600]}: {type(error).__name__}: {error}")
        if time.process_time() - begun > 20:
            wrong.append(f"{reader}: {name}: {text[:300]}: slow")
    return wrong


@pytest.fixture(autouse=True)
def quiet():
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def test_whole_folders_are_read(tmp_path):
    write(tmp_path / "run", whole_run())
    for reader in READERS.values():
        reader(tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    assert 'data-widget="entropy_heatmap"' in page
    assert 'data-widget="denoising_replay"' in page
    write(tmp_path / "both", whole_comparison())
    assert "WeFT then RL against SFT" in write_report(tmp_path / "both").read_text()


def test_damaged_runs(tmp_path):
    assert mistakes(whole_run(), READERS, tmp_path / "run", COUNT, 0) == []


def test_damaged_comparisons(tmp_path):
    readers = {"report": write_report}
    assert mistakes(whole_comparison(), readers, tmp_path / "both", COUNT // 4, 0) == []
