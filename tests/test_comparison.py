"""Paired tables from made-up run folders, with the numbers worked by hand."""

import json
import random

import pytest
from run_folders import write_lines

from weft_rl.errors import UserError
from weft_rl.evaluation.paired_runs import ArmRun, check_alike, compare_units, read_unit
from weft_rl.report.comparison_tables import (
    difference_rows,
    notes,
    score_rows,
    sentences,
    to_markdown,
)
from weft_rl.stats import crossed_mean, record_mean

BASELINES = {
    "all ones": {
        "n": 2,
        "score": 25.0,
        "ci95": [0.0, 50.0],
        "exact": {"score": 0.0, "ci95": [0, 66]},
    }
}


def scores(*values):
    """Records 0, 1, ... with these cell accuracies, exact where all cells are right."""
    return {f"test-{i}": {"cell_accuracy": v, "exact": float(v == 1)} for i, v in enumerate(values)}


def unit(arm, seed, base, cold, rl=None):
    stages = {"base": base, "cold_start": cold, "rl": rl}
    return ArmRun(arm, seed, {k: scores(*v) for k, v in stages.items() if v}, BASELINES)


# base is one model; after RL, WeFT - SFT is (.25, .5) for seed 0 and (.25, .25) for seed 1
UNITS = [
    unit("sft", 0, [0.0, 0.5], [0.25, 0.5], [0.5, 0.5]),
    unit("sft", 1, [0.0, 0.5], [0.25, 0.75], [0.5, 0.75]),
    unit("weft", 0, [0.0, 0.5], [0.0, 0.5], [0.75, 1.0]),
    unit("weft", 1, [0.0, 0.5], [0.5, 0.5], [0.75, 1.0]),
]


def percent(interval):
    return pytest.approx([100 * interval.low, 100 * interval.high], abs=0.006)


def entry(result, kind, **keys):
    found = [e for e in result[kind] if keys.items() <= e.items()]
    assert len(found) == 1
    return found[0]


@pytest.fixture
def result():
    return compare_units(UNITS, ["sft", "weft"], [0, 1], "sudoku")


def test_head(result):
    head = ["arms", "seeds", "task", "n", "metric", "others", "missing"]
    expected = [["sft", "weft"], [0, 1], "sudoku", 2, "cell_accuracy", ["exact"], []]
    assert [result[key] for key in head] == expected
    assert result["baselines"] == BASELINES
    json.dumps(result, allow_nan=False)


def test_scores_by_hand(result):
    found = result["results"]["sft"]["rl"]
    # seed 0: (.5 + .5) / 2 = 50 %, seed 1: (.5 + .75) / 2 = 62.5 %
    assert (found["score"], found["by_seed"]) == (56.25, {"0": 50.0, "1": 62.5})
    # of two seeds, wider than there are shares: -23 to 136 %
    assert crossed_mean([[0.5, 0.5], [0.5, 0.75]]).low < 0
    assert found["ci95"] == [0.0, 100.0]
    # one of WeFT's two records is exact for both seeds
    exact = result["results"]["weft"]["rl"]["exact"]
    assert (exact["score"], exact["by_seed"]) == (50.0, {"0": 50.0, "1": 50.0})


def test_the_base_is_one_measurement(result):
    found = result["results"]["sft"]["base"]
    assert (found["score"], found["by_seed"]) == (25.0, {"0": 25.0, "1": 25.0})
    assert found["ci95"] == percent(record_mean([0.0, 0.5]))


def test_differences_by_hand(result):
    found = entry(result, "differences", stage="rl", arm="weft", reference="sft")
    # (.25 + .5 + .25 + .25) / 4 = .3125; seed means .375, .25: variance .0078125, / 2 = .00390625;
    # item means .25, .375: the same; residuals +-.0625: 4 * .00390625 / 1 / 4 = .00390625;
    # variance .00390625, half 12.706 * .0625 = .794125
    assert (found["difference"], found["seeds"]) == (31.25, [0, 1])
    assert found["ci95"] == pytest.approx([31.25 - 79.41, 100.0], abs=0.01)
    assert found["verdict"] == "not distinguishable"
    # exactly solved: SFT none, WeFT the second record for each seed
    assert found["exact"]["difference"] == 50.0
    # before RL: (-.25, 0) and (.25, -.25), mean -.0625
    assert entry(result, "differences", stage="cold_start")["difference"] == -6.25


def test_gains_by_hand(result):
    # SFT: (.25, 0) and (.25, 0) after RL against its cold start
    found = entry(result, "gains", arm="sft", stage="rl")
    assert (found["before"], found["difference"]) == ("cold_start", 12.5)
    # and (.25, 0), (.25, .25) of the cold start against the base: .75 / 4
    assert entry(result, "gains", arm="sft", stage="cold_start")["difference"] == 18.75
    assert [e["arm"] for e in result["gains"]] == ["sft", "sft", "weft", "weft"]


def test_the_first_arm_is_the_reference():
    swapped = compare_units(UNITS, ["weft", "sft"], [0, 1], "sudoku")
    found = entry(swapped, "differences", stage="rl")
    assert (found["arm"], found["reference"], found["difference"]) == ("sft", "weft", -31.25)
    three = [*UNITS, unit("nll", 0, [0.0, 0.5], [0.0, 0.5], [0.0, 0.5])]
    found = compare_units(three, ["sft", "weft", "nll"], [0, 1], "sudoku")["differences"]
    pairs = [(e["arm"], e["reference"]) for e in found if e["stage"] == "rl"]
    assert pairs == [("weft", "sft"), ("nll", "sft")]


def test_records_are_paired_by_id(result):
    mixed = [
        ArmRun(
            u.arm, u.seed, {k: dict(reversed(v.items())) for k, v in u.scores.items()}, BASELINES
        )
        if u.seed
        else u
        for u in UNITS
    ]
    assert compare_units(mixed, ["sft", "weft"], [0, 1], "sudoku") == result
    backwards = dict(reversed(scores(0.75, 1.0).items()))
    other = ArmRun("weft", 0, {"rl": backwards}, {})
    found = compare_units([UNITS[0], other], ["sft", "weft"], [0], "sudoku")
    # (.25, .5), not (.5, .25): with one seed, over records alone; variance .03125, / 2, t 12.706
    found = entry(found, "differences", stage="rl")
    assert (found["difference"], found["ci95"]) == (37.5, [-100.0, 100.0])
    assert "superiority" not in found


def test_clear_verdicts():
    def rows(shift):
        return [0.25 + shift + 0.01 * i for i in range(8)]

    units = [
        unit(arm, seed, rows(0), rows(0), rows(shift + 0.001 * seed * (arm == "nll")))
        for seed in range(3)
        for arm, shift in (("sft", 0.0), ("weft", 0.25), ("nll", -0.25))
    ]
    found = compare_units(units, ["sft", "weft", "nll"], [0, 1, 2], "sudoku")
    words = [e["verdict"] for e in found["differences"] if e["stage"] == "rl"]
    assert words == ["better", "worse"]
    assert sentences(found)[0] == (
        "WeFT then RL against SFT then RL: +25.0 points [18.6, 31.4] of cell accuracy "
        "over 3 seeds: better (probability of superiority 1.00)."
    )


def test_how_sure_two_arms_are():
    def rows(shift):
        return [0.25 + shift + 0.01 * i for i in range(8)]

    units = [
        unit(arm, seed, rows(0), rows(0), rows(shift * (seed - 0.5)))
        for seed in range(3)
        for arm, shift in (("sft", 0.0), ("weft", 0.1))
    ]
    found = compare_units(units, ["sft", "weft"], [0, 1, 2], "sudoku")
    # differences -.05, .05, .15 of the seeds: two of three are above; mean .05, error .1 / sqrt(3),
    # 2 degrees of freedom: t = 4.303 for the interval, 1.061 for four in five
    change = entry(found, "differences", stage="rl")
    assert change["superiority"] == pytest.approx(2 / 3, abs=1e-4)
    assert change["smallest_visible"] == pytest.approx(
        100 * (4.303 + 1.061) * 0.1 / 3**0.5, abs=0.1
    )
    t = 0.05 / (0.1 / 3**0.5)
    assert change["p"] == pytest.approx(1 - t / (2 + t * t) ** 0.5, abs=1e-4)
    assert sentences(found)[0].endswith(
        "not distinguishable (probability of superiority 0.67; a true difference of about 31.0 "
        "would have shown in roughly two of three such comparisons)."
    )


def test_one_of_several_arms_must_be_further_off_to_show():
    arms = ["sft", "weft", "nll"]
    units = [
        unit(arm, seed, None, None, [0.1 + 0.1 * seed * place] * 30)
        for seed in range(5)
        for place, arm in enumerate(arms)
    ]
    alone = compare_units([u for u in units if u.arm != "nll"], arms[:2], [*range(5)], "sudoku")
    alone = entry(alone, "differences", arm="weft", stage="rl")["smallest_visible"]
    three = compare_units(units, arms, [*range(5)], "sudoku")
    found = entry(three, "differences", arm="weft", stage="rl")
    # seed means 0, .1, .2, .3, .4: variance .025 / 5, no other part; t with 4 degrees at .05, .025
    # and .4: 2.776, 3.495, .941
    error = 100 * 0.005**0.5
    assert alone == pytest.approx((2.776 + 0.941) * error, abs=0.01)
    assert found["smallest_visible"] == pytest.approx((3.495 + 0.941) * error, abs=0.01)
    assert "would have shown in roughly two of three" in sentences(three)[0]


def test_one_record_and_one_seed_say_nothing():
    units = [unit(arm, 0, None, None, [value]) for arm, value in (("sft", 0.25), ("weft", 0.75))]
    found = entry(compare_units(units, ["sft", "weft"], [0], "sudoku"), "differences")
    assert (found["difference"], found["verdict"]) == (50.0, "not distinguishable")


def test_a_difference_that_one_seed_is_left_of():
    units = [unit("sft", s, [0.1] * 8, [0.2] * 8, [0.3] * 8) for s in (0, 1, 2)]
    units.append(unit("weft", 0, [0.1] * 8, [0.4] * 8, [0.5 + 0.01 * i for i in range(8)]))
    said = sentences(compare_units(units, ["sft", "weft"], [0, 1, 2], "sudoku"))
    assert "over 1 of 3 seeds (0): better" in said[0]
    assert said[0].endswith(", with this seed and for new records only.")
    # SFT's own gain is of three
    assert not any(line.endswith("only.") for line in said if line.startswith("RL after SFT"))
    two = compare_units(units[:2] + units[3:], ["sft", "weft"], [0, 1], "sudoku")
    assert "would have shown" not in " ".join(sentences(two))


def test_a_missing_run():
    # WeFT's seed 1 has not got to RL: its cold start still counts
    units = [*UNITS[:3], unit("weft", 1, [0.0, 0.5], [0.5, 0.5])]
    result = compare_units(units, ["sft", "weft"], [0, 1], "sudoku")
    assert result["missing"] == ["weft-seed1"]
    found = entry(result, "differences", stage="rl")
    # seed 0 alone on both sides: (.25, .5)
    assert (found["seeds"], found["difference"]) == ([0], 37.5)
    assert entry(result, "differences", stage="cold_start")["seeds"] == [0, 1]
    assert result["results"]["sft"]["rl"]["by_seed"].keys() == {"0", "1"}
    assert "over 1 of 2 seeds (0): " in sentences(result)[0]
    assert "Missing: weft-seed1." in to_markdown(result)


def test_runs_of_several_revisions_are_told():
    result = compare_units(UNITS, ["sft", "weft"], [0, 1], "sudoku")
    assert "revisions" not in to_markdown(result | {"revisions": ["a"]})
    page = to_markdown(result | {"revisions": ["a", "b"]})
    assert "Its runs are of 2 revisions: a, b." in page


def test_no_seed_in_common():
    units = [UNITS[0], ArmRun("weft", 0, {}, {}), ArmRun("sft", 1, {}, {}), UNITS[3]]
    result = compare_units(units, ["sft", "weft"], [0, 1], "sudoku")
    assert (result["missing"], result["differences"]) == (["sft-seed1", "weft-seed0"], [])
    assert len(result["gains"]) == 4
    assert "WeFT and SFT cannot be compared after RL: no seed in common." in to_markdown(result)
    assert "WeFT and SFT cannot be compared before RL: no seed in common." in to_markdown(result)
    with pytest.raises(ValueError, match="none has been evaluated"):
        compare_units(units[1:3], ["sft", "weft"], [0, 1], "sudoku")


def test_a_model_without_a_base_run():
    units = [
        ArmRun(u.arm, u.seed, {k: u.scores[k] for k in ("cold_start", "rl")}, {}) for u in UNITS
    ]
    result = compare_units(units, ["sft", "weft"], [0, 1], "sudoku")
    assert [*result["results"]["sft"]] == ["cold_start", "rl"]
    assert [e["stage"] for e in result["gains"]] == ["rl", "rl"]


def test_other_records_are_refused():
    other = ArmRun("weft", 0, {"rl": {"x-0": {"cell_accuracy": 1.0, "exact": 1.0}}}, {})
    with pytest.raises(
        UserError, match=r"weft-seed0: its stage rl .* other records than sft-seed0"
    ):
        compare_units([UNITS[0], other], ["sft", "weft"], [0], "sudoku")


def test_tables_and_page(result):
    head, *rows = score_rows(result)
    assert head == ["arm", "stage", "cell accuracy", "exact", "cell accuracy by seed"]
    stages = ["base", "cold start", "then RL"]
    arms = [("SFT", stage) for stage in stages] + [("WeFT", stage) for stage in stages]
    assert [tuple(row[:2]) for row in rows] == [*arms, ("no model", "all ones")]
    assert rows[2][-1] == "50.0, 62.5"
    assert rows[-1][2:] == ["25.0 [0.0, 50.0]", "0.0 [0.0, 66.0]", ""]
    head, first, *_ = difference_rows(result)
    assert head == ["points", "cell accuracy", "exact"]
    assert first[1] == "+31.2 [-48.2, 100.0] not distinguishable"
    page = to_markdown(result)
    assert all(f"\n- {sentence}\n" in page for sentence in sentences(result))
    assert {line.count("|") for line in page.split("\n\n")[-2].splitlines()} == {6}
    assert "**" not in page  # no bold best number: the words say which differences stand
    assert notes(result) == []
    one = compare_units(UNITS[::2], ["sft", "weft"], [0], "sudoku")
    assert "not for new seeds" in to_markdown(one)


def write_unit(folder, stage, rows, n, task="sudoku"):
    done = folder / "eval.json"
    known = json.loads(done.read_text()) if done.exists() else {}
    known[stage] = {task: {"n": n, "score": 0.0, "ci95": [0, 0], "baselines": BASELINES}}
    folder.mkdir(exist_ok=True)
    done.write_text(json.dumps(known))
    lines = [{"id": name, "task": task, "scores": values} for name, values in rows.items()]
    write_lines(folder / "completions" / f"eval-{stage}.jsonl", lines)


def test_reading_a_run_folder(tmp_path):
    write_unit(tmp_path, "base", scores(0.0, 0.5), 2)
    write_unit(tmp_path, "weft", scores(0.25, 0.5), 2)
    # RL is being evaluated: lines, but nothing in eval.json
    write_lines(tmp_path / "completions" / "eval-rl.jsonl", [{"id": "a", "task": "sudoku"}])
    expected = {"base": scores(0.0, 0.5), "cold_start": scores(0.25, 0.5)}
    assert read_unit(tmp_path, "weft", 3, "sudoku") == ArmRun("weft", 3, expected, BASELINES)
    assert read_unit(tmp_path, "weft", 3, "countdown").scores == {}
    assert read_unit(tmp_path / "none", "weft", 3, "sudoku").scores == {}


def test_a_damaged_run_folder(tmp_path):
    write_unit(tmp_path, "rl", scores(0.0, 0.5), 3)
    with pytest.raises(UserError, match=r"eval-rl\.jsonl: holds 2 records, eval\.json speaks of 3"):
        read_unit(tmp_path, "weft", 0, "sudoku")


def test_runs_of_other_options_are_no_comparison(tmp_path):
    def configured(name, **options):
        (tmp_path / name).mkdir(exist_ok=True)
        text = json.dumps({"task": "sudoku", "rl": {"max_steps": 3}, "versions": {}} | options)
        (tmp_path / name / "config.yaml").write_text(text)

    configured("sft-seed0", seed=0, stages=["sft", "rl"], out="a", versions={"torch": "2"})
    configured("weft-seed0", seed=0, stages=["weft", "rl"], out="b", trackers=["wandb"])
    check_alike(tmp_path, ["sft", "weft"], [0, 1])  # those of seed 1 are not there yet
    configured("weft-seed1", seed=1, task="countdown", rl={"max_steps": 4})
    rule = r"weft-seed1: is no run to compare with sft-seed0 \(different: rl.max_steps, task\)"
    with pytest.raises(UserError, match=rule):
        check_alike(tmp_path, ["sft", "weft"], [0, 1])
    check_alike(tmp_path, ["sft", "weft"], [0])
    # an option that only one has: another revision's, or a difference
    configured("weft-seed0", seed=0, cold_start={"a": None}, revision="b")
    check_alike(tmp_path, ["sft", "weft"], [0])
    configured("sft-seed0", seed=0, revision="b")
    with pytest.raises(UserError, match=r"weft-seed0: .* \(different: cold_start.a\)"):
        check_alike(tmp_path, ["sft", "weft"], [0])
    # what two of one revision differ in counts, though the first run does not know it
    configured("sft-seed0", seed=0, revision="a")
    configured("sft-seed2", seed=2, revision="b", cold_start={"a": 1})
    with pytest.raises(
        UserError, match=r"weft-seed0: .* with sft-seed2 \(different: cold_start.a\)"
    ):
        check_alike(tmp_path, ["sft", "weft"], [0, 2])
    (tmp_path / "sft-seed0" / "config.yaml").write_text("")
    check_alike(tmp_path, ["sft"], [0])  # not begun
    (tmp_path / "sft-seed0" / "eval.json").write_text("{}")
    with pytest.raises(UserError, match="sft-seed0: has scores and no config"):
        check_alike(tmp_path, ["sft"], [0])


def test_a_verdict_among_many_holds_for_all_together():
    """An arm barely better than the first, alone and beside others that do not differ."""

    def rows(seed, shift, name=""):
        rng = random.Random(f"{seed} {name}")
        return [0.4 + shift + rng.uniform(-0.1, 0.1) for _ in range(12)]

    def built(arms):
        shifts = {"sft": 0.0, "weft": 0.105, "nll": 0.0001, "dream": 0.0002}
        units = [
            unit(arm, seed, rows(seed, 0), rows(seed, 0), rows(seed, shifts[arm], arm))
            for arm in arms
            for seed in range(4)
        ]
        return entry(
            compare_units(units, arms, range(4), "sudoku"), "differences", stage="rl", arm="weft"
        )

    alone, among = built(["sft", "weft"]), built(["sft", "weft", "nll", "dream"])
    assert (alone["difference"], alone["p"]) == (among["difference"], among["p"])
    assert alone["p"] == alone["p_holm"]
    assert among["p_holm"] == pytest.approx(3 * among["p"])
    assert 0.05 / 3 < among["p"] < 0.05, among["p"]
    assert (alone["verdict"], among["verdict"]) == ("better", "not distinguishable")
