"""`reproduce`: the runs behind a table, its cells by hand, and one table end to end."""

import csv
import json

import pytest
from in_process import run_in_process
from run_folders import SMALL, write_lines

from weft_rl.config.load import load_run_config
from weft_rl.errors import UserError
from weft_rl.reproduce.command import main
from weft_rl.reproduce.figures import curves_figure, time_figure, token_figure
from weft_rl.reproduce.paper_numbers import SCORES
from weft_rl.reproduce.required_runs import PaperRun, rows_of, runs_of_figure, runs_of_table
from weft_rl.reproduce.tables import norm_table, score_table
from weft_rl.stats import crossed_mean

TINY = load_run_config([], command="test")
LARGE = load_run_config(["model=llada_8b"], command="test")


@pytest.mark.parametrize(
    ("argv", "key"),
    [
        ([], "table=null"),
        (["table=6"], "table=6"),
        (["figure=1"], "figure=1"),
        (["table=2", "figure=3"], "table=2"),
        (["everything"], "what=[everything]"),
        (["tabel=2"], "tabel=2: no such option; did you mean table?"),
        (["table=2", "seeds=[1,1]"], "seeds=[1,1]"),
        (["table=2", "seed=1"], "seed=1"),
        (["table=2", "rl.max_step=3"], "rl.max_step=3: no such option; did you mean rl.max_steps?"),
        (["table=2", "model=./none"], "model=./none"),
        (["table=2", "data=none.jsonl"], "none.jsonl"),
    ],
)
def test_user_errors_stop_it_before_anything_runs(argv, key, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        main(argv)
    assert key in str(error.value)
    assert not any(tmp_path.iterdir())


def test_the_runs_of_a_table():
    assert runs_of_table(2, [0], TINY) == [
        PaperRun("base", "tiny", 0),
        PaperRun("sft", "tiny", 0),
        PaperRun("weft", "tiny", 0),
        PaperRun("sft", "tiny", 0, after_rl=True),
        PaperRun("weft", "tiny", 0, after_rl=True),
    ]
    # three data sets and four tasks at the paper's scale; one and two for the tiny model
    assert len(runs_of_table(1, [0, 1], LARGE)) == 2 * 7 * 4
    assert len(runs_of_table(1, [0], TINY)) == 3 * 2
    assert {unit.data for unit in runs_of_table(1, [0], LARGE)} == {"s1k", "s1k-1.1", "openr1-3k"}
    assert [unit.timed for unit in runs_of_figure(4, [0], TINY)] == [True, True]


def test_a_toy_model_has_its_own_data_and_tasks():
    config = load_run_config(["preset=tiny"], command="it")
    runs = runs_of_table(1, [0], config)
    assert {(unit.data, unit.task) for unit in runs} == {
        ("tiny", "sudoku"),
        ("tiny", "countdown"),
    }
    assert {unit.arm for unit in runs} == {"base", "sft", "weft"}
    arguments = runs[-1].arguments(["model=tiny"])
    assert {"data=tiny", "preset=tiny"} < {*arguments}


def test_the_arguments_of_a_run():
    given = ["model=llada_8b", "data=own.jsonl"]
    arguments = PaperRun("weft", "s1k", 3, after_rl=True).arguments(given)
    assert {"stages=[weft,rl]", "seed=3", "task=sudoku", "data=own.jsonl"} <= {*arguments}
    other = PaperRun("weft", "tiny", 3, task="countdown")
    assert {"stages=[eval]", "task=countdown", "preset=tiny"} <= {*other.arguments([])}
    assert other.trained == PaperRun("weft", "tiny", 3)
    assert (other.evaluated, other.trained.evaluated) == ("base", "weft")


def test_other_options_are_another_folder():
    unit = PaperRun("weft", "tiny", 0)
    plain, longer = unit.folder([]), unit.folder(["cold_start.epochs=2"])
    assert plain != longer
    assert unit.folder([]) == plain
    assert plain.startswith("weft-seed0-")
    timed = PaperRun("sft", "tiny", 0, timed=True)
    assert timed.folder([]).startswith("sft-timed-seed0-")
    assert PaperRun("sft", "tiny", 0, True, "countdown").folder([]).startswith("sft-rl-countdown-")


def evaluated(folder, name, stage, task, values):
    rows = [{"id": f"r{i}", "task": task, "scores": {"first": v}} for i, v in enumerate(values)]
    write_lines(folder / name / "completions" / f"eval-{stage}.jsonl", rows)
    return folder / name, stage


def test_a_table_by_hand(tmp_path):
    (tmp_path / "a").mkdir()
    base, sft, weft = rows_of(1, TINY)
    for name in ("base", "sft0", "sft1", "weft0"):
        (tmp_path / name).mkdir()
    cells = {
        # the base model is the same for both seeds
        (base, "sudoku"): {
            0: evaluated(tmp_path, "base", "base", "sudoku", [0, 0.5]),
            1: evaluated(tmp_path, "base", "base", "sudoku", [0, 0.5]),
        },
        (sft, "sudoku"): {
            0: evaluated(tmp_path, "sft0", "sft", "sudoku", [0.5, 0.5]),
            1: evaluated(tmp_path, "sft1", "sft", "sudoku", [0.5, 1.0]),
        },
        (weft, "sudoku"): {0: evaluated(tmp_path, "weft0", "weft", "sudoku", [1, 1])},
        **{(row, "countdown"): {} for row in (base, sft, weft)},
    }
    paths = score_table(tmp_path, 1, cells, "tiny", [0, 1])
    assert [path.name for path in paths] == ["table1.md", "table1.csv", "table1.tex"]
    with paths[1].open() as file:
        rows = list(csv.reader(file))
    assert rows[0][2:4] == ["Sudoku", "Sudoku, paper"]
    assert [row[1] for row in rows[1:]] == ["base model", "SFT", "WeFT"]
    assert rows[1][2:4] == ["25.0 [0.0, 50.0]", "5.5"]
    assert crossed_mean([[0.5, 0.5], [0.5, 1.0]]).low < 0  # a score's interval ends at 0
    assert rows[2][2] == "62.5 [0.0, 100.0]"
    assert rows[3][2:4] == ["100.0 [34.2, 100.0]", "7.8"]  # Wilson's of 2 of 2
    # without Countdown there is no average
    assert rows[2][4:] == ["\u2013", "23.8", "\u2013"]
    page = paths[0].read_text()
    assert "| SFT | 62.5" in page
    assert "WeFT, Sudoku: 1 of 2 seeds" in page
    tex = paths[2].read_text()
    assert r"SFT & 62.5" in tex
    assert r"95\% intervals" in tex
    assert tex.count(r"\\") == 4


def test_an_averages_interval_is_for_new_records_of_both_tasks(tmp_path):
    base, sft, weft = rows_of(1, TINY)
    values = {"sudoku": [0.5, 0.7, 0.6, 0.6], "countdown": [0.2, 0.4, 0.3, 0.3]}
    for name in ("sft0", "sft1"):
        (tmp_path / name).mkdir()
        rows = [
            {"id": f"{task}{i}", "task": task, "scores": {"first": value}}
            for task, of_task in values.items()
            for i, value in enumerate(of_task)
        ]
        write_lines(tmp_path / name / "completions" / "eval-sft.jsonl", rows)
    runs = {seed: (tmp_path / f"sft{seed}", "sft") for seed in (0, 1)}
    cells = {(row, task): {} for row in (base, sft, weft) for task in values}
    cells |= {(sft, task): runs for task in values}
    with score_table(tmp_path, 1, cells, "tiny", [0, 1])[1].open() as file:
        rows = list(csv.reader(file))
    # seeds are alike; item means vary by .02 / 3 in both tasks: by_item .02 / 3 / 4, twice, / 2^2;
    # t of 3 degrees 3.182: 3.182 * sqrt(.00083333) = .0919. One more record that scores 0 would
    # make it 2.776 * .45 / 5 = .2498, which is more
    assert rows[2][6] == "45.0 [20.0, 70.0]"


def test_the_papers_rows_have_the_printed_averages():
    averages = {
        1: [32.6, 34.9, 35.8, 33.7, 34.4, 33.2, 33.7],
        3: [34.9, 31.0, 35.8],
        4: [32.8, 34.2, 35.8],
    }
    for number, printed in averages.items():
        rows = SCORES[number][1]
        # the paper rounds some averages and cuts others off
        found = [sum(row.printed.values()) / 4 for row in rows]
        assert found == pytest.approx(printed, abs=0.076)


def metrics(run, stage, **columns):
    count = len(next(iter(columns.values())))
    rows = [
        {"stage": stage, "step": i + 1} | {name: values[i] for name, values in columns.items()}
        for i in range(count)
    ]
    run.mkdir()
    write_lines(run / "metrics.jsonl", rows)
    return run


def test_gradient_norms_by_hand(tmp_path):
    runs = {
        PaperRun("weft", "tiny", 0): metrics(tmp_path / "a", "weft", grad_norm=[1.0, 3.0, 8.0]),
        PaperRun("weft_entropy", "tiny", 0): metrics(
            tmp_path / "b", "weft_entropy", grad_norm=[2, 2]
        ),
    }
    path = norm_table(tmp_path, runs)[1]
    with path.open() as file:
        _, entropy, root = csv.reader(file)
    assert entropy == ["entropy", "2.0", "646.1", "2.0", "0.47", "2.0", "2.02"]
    assert root == ["root of the entropy", "8.0", "46.2", "3.0", "0.43", "4.0", "1.03"]


def test_gradient_norms_over_seeds_stay_positive(tmp_path):
    runs = {
        PaperRun("weft", "tiny", seed): metrics(tmp_path / str(seed), "weft", grad_norm=[value])
        for seed, value in enumerate([1.0, 10.0, 100.0])
    }
    path = norm_table(tmp_path, runs)[1]
    with path.open() as file:
        *_, root = csv.reader(file)
    # logs 0, 1, 2 of base 10: mean 1, half 4.303 / sqrt(3) = 2.484: 10^-1.484 to 10^3.484
    assert root[1] == "10.0 [0.0, 3048.9]"


def test_the_figures(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    rows = [("id", "token", "count", "mean_entropy"), (1, "a", 9, 0.5), (2, "\n", 5, 2.0)]
    rows += [(3, "b<c", 3, 1.0), (4, "d", 1, 0.1)]
    with (run / "token_entropy-weft.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    found = token_figure(tmp_path, {PaperRun("weft", "tiny", 0): run})
    assert [path.suffix for path in found] == [".png", ".svg", ".html", ".csv"]
    with found[-1].open(newline="") as file:
        assert [row[0] for row in csv.reader(file)] == ["token", "\n", "b<c", "a", "d"]
    assert "b&lt;c" in found[2].read_text()

    rl = {
        PaperRun(arm, "tiny", seed, after_rl=True): metrics(
            tmp_path / f"{arm}{seed}", "rl", reward=[0.1 * seed, 0.5, 0.5 + 0.1 * seed]
        )
        for arm in ("sft", "weft")
        for seed in (0, 1)
    }
    found = curves_figure(tmp_path, rl)
    with found[-1].open() as file:
        rows = [row for row in csv.reader(file) if row[0] == "SFT then RL"]
    assert rows[0] == ["SFT then RL", "0", "1", "0.000000"]
    assert rows[3] == ["SFT then RL", "1", "1", "0.100000"]
    timed = {
        PaperRun(arm, "tiny", seed, timed=True): metrics(
            tmp_path / f"t-{arm}{seed}", arm, time_s=[1.0, seconds]
        )
        for arm, seed, seconds in (("sft", 0, 10), ("weft", 0, 12), ("sft", 1, 10), ("weft", 1, 11))
    }
    with time_figure(tmp_path, timed)[-1].open() as file:
        assert [row[3] for row in csv.reader(file)] == ["ratio", "1.2000", "1.1000"]
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
    with (out / "table2.csv").open() as file:
        rows = list(csv.reader(file))
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
