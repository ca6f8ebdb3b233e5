"""The report of hand-made run directories: content, escaping, and no network."""

import json
import re
import shlex
import shutil

import pytest
from html_page import Page
from run_folders import PUZZLE, SOLUTION, completion, write_lines

from weft_rl.config.load import load_run_config, to_yaml
from weft_rl.config.overrides import diff_configs
from weft_rl.errors import UserError
from weft_rl.plot.figures import Line
from weft_rl.report.__main__ import main
from weft_rl.report.page import chart, heatmaps
from weft_rl.report.run_report import write_report
from weft_rl.report.samples import sample_groups


def entry(score, low, high, **others):
    return {"n": 256, "score": score, "ci95": [low, high], **others}


RESULTS = {
    "weft": {"sudoku": entry(52.34, 49.9, 55.2, exact={"score": 2.73, "ci95": [1.3, 5.54]})},
    "rl": {"sudoku": entry(79.4, 76.9, 81.8, exact={"score": 38.3, "ci95": [32.5, 44.4]})},
}
BASELINES = {"row filling": entry(47.2, 44.6, 49.7), "all ones": entry(25.0, 23.7, 26.3)}


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "<script>a"
    path.mkdir()
    config = load_run_config(["stages=[weft,rl]", "seed=7", "rl.max_steps=6"], command="x")
    versions = "versions:\n  python: 3.11.7\n  torch: 2.11.0\nrevision: abc123-dirty\n"
    (path / "config.yaml").write_text(to_yaml(config) + versions)
    (path / "eval.json").write_text(json.dumps(RESULTS))
    rows = [
        {"stage": "weft", "step": 10, "loss": 2.0},
        {"stage": "weft", "step": 20, "loss": 1.5},
        {"stage": "rl", "step": 1, "reward": 0.5, "kl": 0.0},
        {"stage": "rl", "step": 3, "reward": 0.625, "kl": 0.1},
    ]
    write_lines(path / "metrics.jsonl", rows)
    answer = completion("rl", f"<reasoning> r1c4=1</reasoning><answer>{SOLUTION}</answer>")
    for name in ("eval-rl", "eval-weft", "rl"):
        write_lines(path / "completions" / f"{name}.jsonl", [answer] * 256)
    return path


def read(path):
    text = write_report(path).read_text()
    return text, Page(text)


@pytest.mark.slow
def test_scores_and_configuration(folder):
    text, page = read(folder)
    assert page.texts[page.texts.index("torch") + 1] == "2.11.0"
    assert page.texts[page.texts.index("revision") + 1] == "abc123-dirty"
    assert " ".join((folder / "config.yaml").read_text().split()) in page.texts
    for label in (
        "reward, rl: 0.5 at step 1, 0.625 at step 3",
        "loss, weft: 2 at step 10, 1.5 at step 20",
        "KL to the reference model, rl: 0 at step 1, 0.1 at step 3",
    ):
        assert f'aria-label="{label}"' in text
    summary = next(text for text in page.texts if text.startswith("Model tiny"))
    assert "rl ends at 79.4%" in summary
    assert "(95% interval 76.9 to 81.8), from 52.3% after weft." in summary
    assert page.tables[0] == [
        ["stage", "cells right", "exact", "n"],
        ["weft: cold start: WeFT", "52.3 [49.9, 55.2]", "2.7 [1.3, 5.5]", "256"],
        ["rl: reinforcement learning", "79.4 [76.9, 81.8]", "38.3 [32.5, 44.4]", "256"],
    ]


SHARED = {"baselines": {name: {"sudoku": entry} for name, entry in BASELINES.items()}}
OF_A_STAGE = {"rl": {"sudoku": RESULTS["rl"]["sudoku"] | {"baselines": BASELINES}}}


@pytest.mark.slow
@pytest.mark.parametrize("change", [SHARED, OF_A_STAGE])
def test_baselines_of_a_stage_or_of_all(folder, change):
    (folder / "eval.json").write_text(json.dumps(RESULTS | change))
    assert read(folder)[1].tables[0][3:] == [
        ["row filling: no model", "47.2 [44.6, 49.7]", "", "256"],
        ["all ones: no model", "25.0 [23.7, 26.3]", "", "256"],
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        # whatever the intervals of the stages: each problem gains a quarter
        ([0.0, 0.5, 0.75], [0.25, 0.75, 1.0], "+25.0 points [5.1, 44.9]: better"),
        ([0.0, 1.0], [1.0, 0.0], "+0.0 points [-100.0, 100.0]: not distinguishable"),
    ],
)
def test_the_summary_pairs_two_stages_by_problem(folder, before, after, change):
    for stage, values in (("weft", before), ("rl", after)):
        rows = [
            completion(stage, "", id=f"test-{i}", scores={"cell_accuracy": value, "exact": 0})
            for i, value in enumerate(values)
        ]
        write_lines(folder / "completions" / f"eval-{stage}.jsonl", rows)
    assert change in read(folder)[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["entropy_heatmap-weft.json", "token_heat-weft.json"])
def test_heat_maps_of_this_and_of_earlier_versions(folder, name):
    example = {"tokens": ["a"], "entropy": [1.5], "beta": [2], "ratio": [2.0]}
    (folder / name).write_text(json.dumps({"examples": [example]}))
    [[[token]]] = heatmaps(folder, ["weft"]).values()
    # masked at t = 1/2 with 1 - (1/2)^2
    assert (token["text"], token["entropy"], token["mask_probability"]) == ("a", "1.500", "0.750")
    assert 'data-ratio="2.0"' in read(folder)[0]


def test_a_long_curve_is_means_of_neighbors():
    steps = [float(step) for step in range(1, 60_001)]
    (line,) = chart("reward", {"arm": [Line("arm", steps, steps)]})["lines"]
    # 1 .. 60 have the mean 30.5, the last sixty 59970.5
    assert (line["runs"][0][0], line["runs"][0][-1], len(line["steps"])) == (30.5, 59970, 1000)
    (line,) = chart("reward", {"arm": [Line("arm", steps[:1000], steps[:1000])]})["lines"]
    assert line["steps"] == line["runs"][0] == steps[:1000]


@pytest.mark.slow
def test_a_page_fetches_nothing(folder):
    text, page = read(folder)
    assert {link[0] for link in page.links} == {"#"}
    assert len(set(page.ids)) == len(page.ids)
    assert {link[1:] for link in page.links} <= set(page.ids)
    assert not any(word in text for word in ("://", "@import"))
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))
    assert "default-src 'none'" in text
    assert len(text) < 250_000
    assert text == read(folder)[0]


def without_own_scripts(text):
    """The page without its script and its data, which must not contain a tag."""
    own = r'<script>"use strict";[^<]*(?:<(?!/?script)[^<]*)*</script>'
    data = r'<script type="application/json">[^<]*</script>'
    return re.sub(f"{own}|{data}", "", text)


HOSTILE = "<!--</pre><script>alert(1)</script><img src=x onerror=y>\ud800{{ 7*7 }}"


@pytest.mark.slow
def test_foreign_text_is_escaped(folder):
    results = {"<script>s": {"<script>t": entry(1, 0, 2, baselines={"<script>b": entry(1, 0, 2)})}}
    (folder / "eval.json").write_text(json.dumps(results | RESULTS))
    config = {"stages": ["rl"], "model": "tiny", "data": HOSTILE, "versions": {HOSTILE: HOSTILE}}
    (folder / "config.yaml").write_text(json.dumps(config))
    row = {"stage": '"><script>', "step": 1, "loss": 1.0, "reward": 1.0}
    write_lines(folder / "metrics.jsonl", [row])
    hostile = completion("rl", HOSTILE, id=HOSTILE, prompt=HOSTILE)
    write_lines(folder / "completions" / "eval-rl.jsonl", [hostile])
    played = {"prompt": HOSTILE, "tokens": [HOSTILE], "opened": [1], "confidences": [1], "steps": 1}
    (folder / "completions" / "trace-rl.json").write_text(json.dumps({"examples": [played]}))
    text, page = read(folder)
    assert "<script" not in without_own_scripts(text)
    assert "<img" not in without_own_scripts(text)
    assert "<!--" not in text
    assert HOSTILE.replace("\ud800", r"\ud800") in page.texts
    assert {link[0] for link in page.links} == {"#"}


@pytest.mark.slow
def test_marks_do_not_depend_on_color(folder):
    wrong = completion("rl", "<answer>4322124334122134</answer>")
    write_lines(folder / "completions" / "eval-rl.jsonl", [wrong])
    _, page = read(folder)
    (grid,) = [table for table in page.tables[1:] if table[0][3] == "2✗"]
    assert "given" in page.texts
    rows = ["4 3 2 2✗", "1✓ 2✓ 4 3", "3 4✓ 1 2✓", "2✓ 1✓ 3✓ 4"]
    assert grid == [row.split() for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"task": "countdown", "fields": {"numbers": [1, 2], "target": 3}},
        {"fields": {"puzzle": "12", "solution": SOLUTION}},
        *({"fields": {"puzzle": PUZZLE, "solution": "12"}}, {"fields": {}}),
    ],
)
def test_completions_without_a_grid_are_text(folder, changes):
    shutil.rmtree(folder / "completions")
    rows = [completion("rl", "text", **changes), {"completion": "no fields"}]
    write_lines(folder / "completions" / "eval-rl.jsonl", rows)
    [group] = sample_groups(folder, ["rl"])
    assert [sample.grid for sample in group.samples] == [[], []]
    _, page = read(folder)
    assert "text" in page.texts
    assert "given" not in page.texts  # the grids' legend


@pytest.mark.slow
def test_the_command_repeats_the_run(folder):
    _, page = read(folder)
    (line,) = [text for text in page.texts if text.startswith("python -m weft_rl.pipeline")]
    argv = shlex.split(line)[3:]
    again = load_run_config(argv, command="x")
    assert diff_configs((folder / "config.yaml").read_text(), again) == []
    assert again.stages == ["weft", "rl"]
    assert argv == ["stages=[weft,rl]", "model=tiny", "seed=7", "rl.max_steps=6", "out=runs/again"]


def test_out_is_the_file_that_is_written(folder, tmp_path, capsys):
    before = {*folder.iterdir()}
    assert main([str(folder), f"out={tmp_path / 'a.html'}"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'a.html'}\n"
    assert {*folder.iterdir()} == before
    assert main([str(folder)]) == 0
    assert (tmp_path / "a.html").read_bytes() == (folder / "report.html").read_bytes()


@pytest.mark.parametrize("out", ["config.yaml", "missing/a.html"])
def test_a_file_that_is_not_written(folder, tmp_path, out):
    with pytest.raises(UserError, match=r"^out="):
        main([str(folder), f"out={tmp_path / out}"])


@pytest.mark.parametrize("only", ["config.yaml", "metrics.jsonl", "eval.json"])
def test_a_partial_directory_has_a_report(folder, only):
    for path in folder.iterdir():
        if path.name == "completions":
            shutil.rmtree(path)
        elif path.name != only:
            path.unlink()
    assert len(read(folder)[1].tables) == (only == "eval.json")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *(("eval.json", '{"rl"'), ("config.yaml", "a: ["), ("config.yaml", "stages: rl")),
        ("eval.json", '{"rl": {"sudoku": {"n": 1, "score": "5", "ci95": [0, 9]}}}'),
        ("eval.json", '{"rl": {"sudoku": {"n": "1", "score": 5, "ci95": [0, 9]}}}'),
    ],
)
def test_user_errors_name_the_file(tmp_path, name, text):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(UserError, match=str(path)):
            write_report(path)
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=name):
        write_report(tmp_path)


@pytest.mark.slow
def test_damaged_heat_maps_are_left_out(folder, caplog):
    (folder / "entropy_heatmap-weft.json").write_text('{"examples": [{"tokens": ["a"]}]}')
    assert "entropy_heatmap" not in without_own_scripts(read(folder)[0])
    assert "entropy_heatmap-weft.json" in caplog.text


#   4 3 2 .      4 3 2 1
#   . . 4 3      1 2 4 3
#   3 . 1 .      3 4 1 2
#   . . . 4      2 1 3 4
@pytest.mark.parametrize(
    ("answer", "kinds", "verdict"),
    [
        (SOLUTION, "cccrrrcccrcrrrrc", "8 of 8 empty cells right"),
        ("4322 1143 3412 2134", "cccwrwcccrcrrrrc", "6 of 8 empty cells right"),
        ("1321124334122134", "xccrrrcccrcrrrrc", "8 of 8 empty cells right; changes a clue"),
        ("432112", "cccrrrcccwcwwwwc", "3 of 8 empty cells right; 6 digits instead of 16"),
        (SOLUTION + "1", "cccrrrcccrcrrrrc", "8 of 8 empty cells right; 17 digits instead of 16"),
        (None, "cccwwwcccwcwwwwc", "no answer"),
    ],
)
def test_each_cell_is_judged(tmp_path, answer, kinds, verdict):
    text = "I do not know" if answer is None else f"<answer>{answer}</answer>"
    write_lines(tmp_path / "completions" / "eval-rl.jsonl", [completion("rl", text)])
    [[sample]] = [group.samples for group in sample_groups(tmp_path, ["rl"])]
    letters = {"clue": "c", "changed": "x", "right": "r", "wrong": "w"}
    assert "".join(letters[cell.kind] for row in sample.grid for cell in row) == kinds
    assert [len(row) for row in sample.grid] == [4, 4, 4, 4]
    if answer == "432112":
        texts = ["".join(cell.text for cell in row) for row in sample.grid]
        assert texts == ["4321", "12" + "43", "3·1·", "···4"]
    assert sample.verdict == verdict


def test_without_a_solution_any_solved_grid_is_right(tmp_path):
    # rows 3 and 4 are open and have several completions, of which the answer is one
    fields = {"puzzle": "1234432100000000", "solution": None}
    answer = completion("rl", "<answer>1234432121433412</answer>", fields=fields)
    write_lines(tmp_path / "completions" / "eval-rl.jsonl", [answer])
    [[sample]] = [group.samples for group in sample_groups(tmp_path, [])]
    assert sample.verdict == "8 of 8 empty cells right"


def test_first_held_out_and_last_trained(tmp_path):
    rows = [completion("rl", "", id=f"p-{i}") for i in range(20)]
    for name in ("eval-weft", "eval-rl", "rl", "eval-zeta"):
        write_lines(tmp_path / "completions" / f"{name}.jsonl", rows)
    groups = sample_groups(tmp_path, ["weft", "rl"])
    expected = [("weft", True), ("rl", True), ("zeta", True), ("rl", False)]
    assert [(group.stage, group.is_held_out) for group in groups] == expected
    assert [sample.name for sample in groups[0].samples] == [f"p-{i}" for i in range(6)]
    assert [sample.name for sample in groups[3].samples] == [f"p-{i}" for i in range(14, 20)]
