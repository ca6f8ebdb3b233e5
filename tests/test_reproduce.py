"""`reproduce`: the runs behind a table, its cells by hand, and one table end to end."""

import csv
import json

import pytest
from in_process import run_in_process
from run_folders import SMALL, write_lines

from weft_rl.config.load import load_run_config
from weft_rl.reproduce.__main__ import main
from weft_rl.reproduce.figures import curves_figure, time_figure, token_figure
from weft_rl.reproduce.paper import SCORES, PaperRun, runs_of_figure, runs_of_table
from weft_rl.reproduce.tables import norm_table, score_table
from weft_rl.stats import crossed_mean

TINY = load_run_config([], command="test")
LARGE = load_run_config(["model=llada_8b"], command="test")


def test_the_runs_of_a_table():
    starts = [PaperRun(arm, "tiny", 0) for arm in ("base", "sft", "weft")]
    after = [PaperRun(arm, "tiny", 0, after_rl=True) for arm in ("sft", "weft")]
    assert runs_of_table(2, [0], TINY) == [*starts, *after]
    # three data sets and four tasks at the paper's scale; one and two for the tiny model
    assert len(runs_of_table(1, [0, 1], LARGE)) == 2 * 7 * 4
    assert {unit.data for unit in runs_of_table(1, [0], LARGE)} == {"s1k", "s1k-1.1", "openr1-3k"}
    runs = runs_of_table(1, [0], TINY)
    cells = {(arm, task) for arm in ("base", "sft", "weft") for task in ("sudoku", "countdown")}
    assert len(runs) == 6
    assert {(unit.arm, unit.task) for unit in runs} == cells
    assert {unit.data for unit in runs} == {"tiny"}
    assert {"data=tiny", "preset=tiny"} < {*runs[-1].arguments(["model=tiny"])}
    assert [unit.timed for unit in runs_of_figure(4, [0], TINY)] == [True, True]


def test_the_arguments_of_a_run(tmp_path):
    given = ["model=llada_8b", "data=own.jsonl"]
    arguments = PaperRun("weft", "s1k", 3, after_rl=True).arguments(given)
    assert {"stages=[weft,rl]", "seed=3", "task=sudoku", "data=own.jsonl"} <= {*arguments}
    other = PaperRun("weft", "tiny", 3, task="countdown")
    assert {"stages=[eval]", "task=countdown", "preset=tiny"} <= {*other.arguments([])}
    assert other.trained == PaperRun("weft", "tiny", 3)
    assert [run.evaluated(tmp_path) for run in (other, other.trained)] == ["base", "weft"]
    # an autoregressive model is evaluated once it is adapted
    (tmp_path / "eval.json").write_text(json.dumps({"a2d": {"sudoku": {"score": 1.0}}}))
    assert PaperRun("base", "s1k", 3).evaluated(tmp_path) == "a2d"
    # other options are another folder
    unit = PaperRun("weft", "tiny", 0)
    plain, longer = unit.folder([]), unit.folder(["cold_start.epochs=2"])
    assert unit.folder([]) == plain != longer
    assert plain.startswith("weft-seed0-")
    timed = PaperRun("sft", "tiny", 0, timed=True)
    assert timed.folder([]).startswith("sft-timed-seed0-")
    assert PaperRun("sft", "tiny", 0, True, "countdown").folder([]).startswith("sft-rl-countdown-")


def evaluated(folder, unit, *values):
    rows = [
        {"id": f"{i}", "task": unit.task, "scores": {"first": value}}
        for i, value in enumerate(values)
    ]
    run = folder / f"{unit.arm}-{unit.task}{unit.seed}"
    run.mkdir()
    (run / "eval.json").write_text(json.dumps({unit.evaluated(run): {unit.task: {}}}))
    write_lines(run / "completions" / f"eval-{unit.evaluated(run)}.jsonl", rows)
    return run


def table_rows(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_a_table_by_hand(tmp_path):
    scores = {
        PaperRun("base", "tiny", 0): [0, 0.5],  # the same for both seeds
        PaperRun("base", "tiny", 1): [0, 0.5],
        PaperRun("sft", "tiny", 0): [0.5, 0.5],
        PaperRun("sft", "tiny", 1): [0.5, 1.0],
        PaperRun("weft", "tiny", 0): [1, 1],
    }
    runs = {unit: evaluated(tmp_path, unit, *values) for unit, values in scores.items()}
    runs[PaperRun("weft", "tiny", 1)] = tmp_path / "not begun"
    paths = score_table(tmp_path, 1, runs, TINY, [0, 1])
    assert [path.name for path in paths] == ["table1.md", "table1.csv", "table1.tex"]
    rows = table_rows(paths[1])
    assert rows[0][2:4] == ["Sudoku", "Sudoku, paper"]
    assert [row[1] for row in rows[1:]] == ["base model", "SFT", "WeFT"]
    assert rows[1][2:4] == ["25.0 [0.0, 50.0]", "5.5"]
    assert crossed_mean([[0.5, 0.5], [0.5, 1.0]]).low < 0  # a score's interval ends at 0
    assert rows[2][2] == "62.5 [0.0, 100.0]"
    assert rows[3][2:4] == ["100.0 [34.2, 100.0]", "7.8"]  # Wilson's of 2 of 2
    # without Countdown there is no average
    assert rows[2][4:] == ["\u2013", "23.8", "\u2013"]
    assert "| SFT | 62.5" in paths[0].read_text()
    tex = paths[2].read_text()
    assert r"SFT & 62.5" in tex
    assert tex.count(r"\\") == 4


def test_an_averages_interval_is_for_new_records_of_both_tasks(tmp_path):
    values = {"sudoku": [0.5, 0.7, 0.6, 0.6], "countdown": [0.2, 0.4, 0.3, 0.3]}
    units = [PaperRun("sft", "tiny", seed, task=task) for seed in (0, 1) for task in values]
    runs = {unit: evaluated(tmp_path, unit, *values[unit.task]) for unit in units}
    rows = table_rows(score_table(tmp_path, 1, runs, TINY, [0, 1])[1])
    # seeds are alike; item means vary by .02 / 3 in both tasks: by_item .02 / 3 / 4, twice, / 2^2;
    # t of 3 degrees 3.182: 3.182 * sqrt(.00083333) = .0919. One more record that scores 0 would
    # make it 2.776 * .45 / 5 = .2498, which is more
    assert rows[2][6] == "45.0 [20.0, 70.0]"


def test_the_papers_rows_have_the_printed_averages():
    averages = {1: [32.6, 34.9, 35.8, 33.7, 34.4, 33.2, 33.7]}
    averages |= {3: [34.9, 31.0, 35.8], 4: [32.8, 34.2, 35.8]}
    for number, printed in averages.items():
        # the paper rounds some averages and cuts others off
        found = [sum(row.printed.values()) / 4 for row in SCORES[number][1]]
        assert found == pytest.approx(printed, abs=0.076)


def metrics(run, stage, **columns):
    rows = [
        {"stage": stage, "step": step} | dict(zip(columns, values, strict=True))
        for step, values in enumerate(zip(*columns.values(), strict=True), 1)
    ]
    run.mkdir()
    write_lines(run / "metrics.jsonl", rows)
    return run


def test_gradient_norms_by_hand(tmp_path):
    runs = {
        PaperRun(arm, "tiny", 0): metrics(tmp_path / arm, arm, grad_norm=norms)
        for arm, norms in (("weft", [1.0, 3.0, 8.0]), ("weft_entropy", [2, 2]))
    }
    _, entropy, root = table_rows(norm_table(tmp_path, runs)[1])
    assert entropy == ["entropy", "2.0", "646.1", "2.0", "0.47", "2.0", "2.02"]
    assert root == ["root of the entropy", "8.0", "46.2", "3.0", "0.43", "4.0", "1.03"]
    # over seeds: logs 0, 1, 2 of base 10: mean 1, half 4.303 / sqrt(3) = 2.484: 10^-1.484 to
    # 10^3.484
    runs = {
        PaperRun("weft", "tiny", seed): metrics(
            tmp_path / str(seed), "weft", grad_norm=[10.0**seed]
        )
        for seed in range(3)
    }
    assert table_rows(norm_table(tmp_path, runs)[1])[-1][1] == "10.0 [0.0, 3048.9]"


def test_the_figures(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    rows = [("id", "token", "count", "mean_entropy"), (1, "a", 9, 0.5), (2, "\n", 5, 2.0)]
    rows += [(3, "b<c", 3, 1.0), (4, "d", 1, 0.1)]
    with (run / "token_entropy-weft.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    found = token_figure(tmp_path, {PaperRun("weft", "tiny", 0): run})
    assert [path.suffix for path in found] == [".png", ".svg", ".html", ".csv"]
    assert [row[0] for row in table_rows(found[-1])] == ["token", "\n", "b<c", "a", "d"]
    assert "b&lt;c" in found[2].read_text()

    rl = {
        PaperRun(arm, "tiny", seed, after_rl=True): metrics(
            tmp_path / f"{arm}{seed}", "rl", reward=[0.1 * seed, 0.5, 0.5 + 0.1 * seed]
        )
        for arm in ("sft", "weft")
        for seed in (0, 1)
    }
    rows = [row for row in table_rows(curves_figure(tmp_path, rl)[-1]) if row[0] == "SFT then RL"]
    assert rows[0] == ["SFT then RL", "0", "1", "0.000000"]
    assert rows[3] == ["SFT then RL", "1", "1", "0.100000"]
    timed = {
        PaperRun(arm, "tiny", seed, timed=True): metrics(
            tmp_path / f"t-{arm}{seed}", arm, time_s=[1.0, seconds]
        )
        for arm, seed, seconds in (("sft", 0, 10), ("weft", 0, 12), ("sft", 1, 10), ("weft", 1, 11))
    }
    ratios = [row[3] for row in table_rows(time_figure(tmp_path, timed)[-1])]
    assert ratios == ["ratio", "1.2000", "1.1000"]
    for draw in (token_figure, curves_figure, time_figure):
        assert draw(tmp_path, {}) == []


@pytest.mark.slow
def test_one_table_end_to_end_and_again(tmp_path, monkeypatch, capsys):
    run_in_process(monkeypatch)
    monkeypatch.setenv("WEFT_RL_CACHE", str(tmp_path / "cache"))
    title, rows = SCORES[2]
    monkeypatch.setitem(SCORES, 2, (title, rows[::2]))  # without SFT, which adds two runs
    out = tmp_path / "out"
    argv = ["table=2", "seeds=[0]", f"out={out}", *SMALL]
    assert main(argv) == 0
    rows = table_rows(out / "table2.csv")
    assert [row[1] for row in rows[1:]] == ["base model", "WeFT", "WeFT + RL"]
    assert all("[" in row[2] for row in rows[1:])
    runs = sorted(path.name for path in out.iterdir() if "-seed" in path.name)
    assert len(runs) == 3
    assert "done after" in capsys.readouterr().out
    # a second time nothing runs; after that, only the run that lost its scores
    evaluations = {name: (out / name / "eval.json").stat().st_mtime_ns for name in runs}
    assert main(argv) == 0
    assert "done after" not in capsys.readouterr().out
    (out / runs[0] / "eval.json").write_text(json.dumps({}))
    assert main(argv) == 0
    after = {name: (out / name / "eval.json").stat().st_mtime_ns for name in runs}
    assert [name for name in runs if after[name] != evaluations[name]] == [runs[0]]
