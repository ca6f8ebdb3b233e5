"""Directories with damaged values: report, plot and comparisons read them, or name the file."""

import logging

import pytest
from damaged_runs import as_bytes, whole_comparison, whole_run, write
from fuzz import damages, fuzz, with_damage

from weft_rl.errors import UserError
from weft_rl.evaluation.paired_runs import read_arm_run
from weft_rl.plot.__main__ import plot_runs
from weft_rl.plot.curves import plot_run
from weft_rl.report.run_report import write_report
from weft_rl.runs.folder import finished_stages, read_config, read_results
from weft_rl.trainers.infra.callbacks import MetricsWriter

pytestmark = pytest.mark.slow
READERS = {
    "report": write_report,
    "plot of a run": lambda run: plot_run(run, run / "curves.png"),
    "plot": lambda run: plot_runs([run], run / "plot.svg"),
    "unit": lambda run: read_arm_run(run, "weft", 0, "sudoku"),
    "small readers": lambda run: (
        finished_stages(run), read_config(run), read_results(run), MetricsWriter(run, "rl")
    ),
}  # fmt: skip


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


CASES = [(whole_run(), reader) for reader in READERS.values()]


@pytest.mark.parametrize(("files", "reader"), [*CASES, (whole_comparison(), write_report)])
def test_damaged_folders(files, reader, tmp_path):
    """Thousands were tried while this was written."""

    def use(damage):
        with_damage(tmp_path, as_bytes(files), damage)
        try:
            reader(tmp_path)
        except UserError as error:
            if str(tmp_path) not in str(error):
                raise AssertionError(error) from error
            raise

    fuzz(use, damages(*files), count=8)
