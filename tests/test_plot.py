"""Curves: the numbers drawn, incomplete and damaged run directories, and the image files."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

from weft_rl.errors import UserError
from weft_rl.plot.__main__ import main, plot_runs
from weft_rl.plot.curves import mean_curves, plot_run, read_curves, run_curves
from weft_rl.plot.figures import Bar, Line, draw_bars, draw_curves
from weft_rl.report import page

# decay of 1/2 over half of the range: w = (1/2)^(1/500), and w^2 is the slider's value
HALF = 0.5 ** (2 / 500)


def write_run(folder, *rows, tail=""):
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metrics.jsonl").write_text(text + tail)
    return folder


def rl(step, **metrics):
    return {"stage": "rl", "step": step, "time_s": 1.0, **metrics}


def drawn(run, smoothing=HALF):
    lines = list(read_curves(run, "reward").values())
    figure = draw_curves({"": lines}, smoothing)
    return [(line.get_xdata(), line.get_ydata()) for line in figure.axes[0].lines]


def test_raw_values_and_their_average(tmp_path):
    rows = [rl(10, reward=0.0), rl(20, reward=1.0), rl(30, reward=1.0)]
    raw, smoothed = drawn(write_run(tmp_path, *rows))
    assert np.array_equal(raw, [[10, 20, 30], [0, 1, 1]])
    # last 0, 0.5*0 + 1, 0.5*1 + 1; debias 1, 1.5, 1.75
    assert np.allclose(smoothed, [[10, 20, 30], [0, 1 / 1.5, 1.5 / 1.75]])


def test_gaps_odd_values_and_an_incomplete_line(tmp_path):
    rows = [
        rl(1, reward=0.25),
        rl(2, loss=3.0),  # a step that reuses a rollout has no reward
        rl(3, reward=None),
        rl(4, reward="0.5"),
        rl(5, reward=True),
        rl(7, reward=0.75),
        rl(6, reward=0.5),
        rl(7, reward=1),  # repeated after an interruption
    ]
    run = write_run(tmp_path, *rows, tail='{"stage": "rl", "step": 8, "reward": NaN}\n{"stage": "r')
    raw, _ = drawn(run, smoothing=0.6)
    assert np.array_equal(raw, [[1, 6, 7], [0.25, 0.5, 1]])


def test_a_damaged_line_is_skipped_with_a_warning(tmp_path, caplog):
    run = write_run(tmp_path, rl(1, reward=0.25), tail='{"stage": "rl", "st\n[1]\n\n')
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(b"\xff\xfe\n" + json.dumps(rl(2, reward=0.5)).encode() + b'\n{"stage": "r')
    for _ in range(2):  # warns once
        raw, _ = drawn(run)
        assert np.array_equal(raw, [[1, 2], [0.25, 0.5]])
    begins = [text.partition(" ")[0] for text in caplog.messages]
    assert begins == [f"{run / 'metrics.jsonl'}:{line}:" for line in (2, 3, 4, 5)]


@pytest.mark.parametrize(
    ("other", "metric", "error"),
    [
        ("task: countdown", "reward", "two: task=countdown"),
        ("task: countdown", "loss", "two: task=countdown"),
        ("rewards: d1", "reward_ema", "two: rewards=d1"),
        ("rl: {rollout: {reward_weights: [1, 2]}}", "reward", "reward_weights=[1,2]"),
        ("rewards: d1", "loss", None),
        ("rewards: d1", "kl", None),  # only the first has it
        *(("seed: 3", "reward", None), ("[", "reward", "two/config.yaml: ")),
    ],
)
def test_metrics_that_are_not_comparable_are_refused(tmp_path, monkeypatch, other, metric, error):
    monkeypatch.chdir(tmp_path)
    one = write_run(tmp_path / "one", rl(1, reward=0.5, reward_ema=0.5, loss=1.0, kl=0.1))
    two = write_run(tmp_path / "two", rl(1, reward=0.5, reward_ema=0.5, loss=1.0))
    write_run(tmp_path / "three", rl(1, reward=0.5, reward_ema=0.5, loss=1.0))  # without options
    options = "task: sudoku\nrewards: plain\nrl: {rollout: {reward_weights: null}}\n"
    (one / "config.yaml").write_text(options)
    (two / "config.yaml").write_text(other)
    argv = ["one", "two", "three", f"metric={metric}"]
    if error is None:
        assert main(argv) == 0
    else:
        with pytest.raises(UserError, match=re.escape(error)):
            main(argv)
        assert not (tmp_path / "curves.png").exists()


def test_labels_have_name_stage_and_path(tmp_path):
    one = write_run(tmp_path / "x" / "_a$b$", rl(1, reward=0.1))
    other = {"stage": "gr<po", "step": 1, "reward": 0.3}
    two = write_run(tmp_path / "x" / "two", rl(1, reward=0.2), other)
    empty = write_run(tmp_path / "x" / "nothing")
    plot_runs([one, two, one, empty], tmp_path / "x.svg")
    svg = (tmp_path / "x.svg").read_text()
    texts = re.findall(r"<text [^>]*>([^<]*)</text>", svg)
    labels = [text.strip() for text in texts if "_a" in text or "two" in text or "nothing" in text]
    assert labels == ["no reward in nothing", "_a$b$", "two (rl)", "two (gr&lt;po)"]
    same = write_run(tmp_path / "y" / "two", rl(1, reward=0.4))
    plot_runs([two, same], tmp_path / "x.svg")
    svg = (tmp_path / "x.svg").read_text()
    assert ">x/two (rl)</text>" in svg
    assert ">y/two</text>" in svg


def test_lines_have_contrast_on_a_white_and_a_dark_page():
    lines = [Line(str(i), [1, 2], [i, i]) for i in range(50)]
    figure = draw_curves({"": lines}, 0.6)
    bold = figure.axes[0].lines[1::2]
    styles = {(line.get_color(), line.get_linestyle(), line.get_marker()) for line in bold}
    assert len(styles) == 50
    colors = [line.get_color() for line in bold[:6]]
    assert len(set(colors)) == 6
    # the reports' script draws in the same ones
    script = Path(page.__file__).with_name("templates") / "interactive.js"
    assert json.dumps(colors) in script.read_text(encoding="utf-8")

    def luminance(color):
        share = np.array(to_rgb(color))
        linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    for page_colour in ("#ffffff", "#15171b"):
        ground = luminance(page_colour)
        for color in map(luminance, colors):
            # WCAG 2.2, 1.4.11
            assert (max(color, ground) + 0.05) / (min(color, ground) + 0.05) >= 3


def test_the_panels_of_a_run(tmp_path):
    rows = [
        {"stage": "base", "step": 1, "loss": 3.0},
        {"stage": "weft", "step": 5, "loss": 2.0},
        rl(1, loss=0.0, reward=0.5, kl=0.1, completion_length=31.0),
    ]
    curves = [*run_curves(write_run(tmp_path, *rows)).values()]
    assert len(curves) == 5
    assert curves[2] == Line("weft", [5], [2.0])
    plot_run(tmp_path, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("ending", ["png", "svg", "html"])
def test_equal_data_gives_equal_bytes(tmp_path, ending):
    run = write_run(tmp_path / "a<b", *(rl(step, reward=step / 100) for step in range(100)))
    paths = [tmp_path / f"{name}.{ending}" for name in "ab"]
    for path in paths:
        plot_runs([run], path)
    images = [path.read_bytes() for path in paths]
    assert images[0] == images[1]
    assert len(images[0]) < 100_000
    if ending == "html":
        assert b"<title>reward of a&lt;b</title>" in images[0]
        assert b"://" not in images[0]
    assert re.search(rb"\b20\d\d-\d\d-\d\d", images[0]) is None  # no date
    assert not list(tmp_path.glob(".*"))


def test_bars_and_intervals():
    bars = [Bar("weft", 60.0, (55.0, 66.0)), Bar("all ones", 0.0, (0.0, 1.5), is_baseline=True)]
    axes = draw_bars({"cells right (%)": bars}).axes[0]
    drawn = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    assert [(bar.get_width(), bar.get_hatch()) for bar in drawn] == [(60.0, ""), (0.0, "////")]
    errors = [lines for lines in axes.collections if isinstance(lines, LineCollection)]
    ends = [segment[:, 0].tolist() for lines in errors for segment in lines.get_segments()]
    assert ends == [[55.0, 66.0], [0.0, 1.5]]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["weft", "all ones"]
    assert axes.yaxis_inverted()


@pytest.mark.parametrize(
    ("words", "error"),
    [
        *(("gone", "gone: "), ("r blank metric=los", "r, blank: no los")),
        *(("blank", "blank: no reward"), ("empty", "empty: no reward")),
        *(("r metric=los", "metric= one of loss, reward"), ("r out=a.pdf", "out=a.pdf")),
        *(("r out=no/a.png", "out=no/a.png"), ("r out=folder.png", "out=folder.png")),
        *(("r smoothing=2", "smoothing=2"), ("", "runs: ")),
    ],
)
def test_user_errors(tmp_path, monkeypatch, words, error):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "r", rl(1, reward=0.5, loss=1.0))
    for folder in ("blank", "empty", "folder.png"):
        (tmp_path / folder).mkdir()
    (tmp_path / "blank" / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match=re.escape(error)):
        main(words.split())
    assert {path.name for path in tmp_path.iterdir()} == {"r", "blank", "empty", "folder.png"}


@pytest.mark.slow
def test_no_torch_for_plots_and_reports_and_no_matplotlib_on_import(tmp_path):
    run = write_run(tmp_path / "r", rl(1, reward=0.5))
    code = """import sys
from weft_rl.plot.__main__ import main as plot
from weft_rl.report.__main__ import main as report
print('matplotlib' in sys.modules)
plot(sys.argv[1:]), report(sys.argv[1:2])
print({'torch', 'matplotlib.pyplot'} & {*sys.modules})"""
    argv = [sys.executable, "-c", code, str(run), f"out={tmp_path / 'c.png'}"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    written = [str(tmp_path / "c.png"), str(run / "report.html")]
    assert done.stdout.splitlines() == ["False", *written, "set()"]


@pytest.mark.parametrize(
    ("rewards", "low", "high"),
    [
        ([0.1, 0.5, 0.9], 0, 1),
        ([0.1, 0.5, 1.2], 0, 0.6 + 4.3027 * 0.5568 / 3**0.5),  # weighted: more than 1 can be
        ([-0.1, 0.5, 0.9], 0.4333 - 4.3027 * 0.5033 / 3**0.5, 1),
        ([0.4, 0.5, 0.6], 0.5 - 4.3027 * 0.1 / 3**0.5, 0.5 + 4.3027 * 0.1 / 3**0.5),
    ],
)
def test_a_mean_rewards_band(rewards, low, high):
    lines = [Line("", [1, 2], [reward, reward]) for reward in rewards]
    (line,) = mean_curves({"arm": lines})
    assert np.allclose(line.band, [[low, low], [high, high]], atol=1e-3)
