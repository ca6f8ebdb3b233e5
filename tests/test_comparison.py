"""Paired differences from made-up runs, with the numbers worked by hand."""

import json
import random

import pytest
from run_folders import write_lines

from weft_rl.errors import UserError
from weft_rl.evaluation.paired_runs import ArmRun, compare_runs, read_arm_run, require_same_options
from weft_rl.report.comparison import notes, to_markdown
from weft_rl.stats import crossed_mean, record_mean

EXACT = {"score": 0.0, "ci95": [0, 66]}
BASELINES = {"all ones": {"n": 2, "score": 25.0, "ci95": [0.0, 50.0], "exact": EXACT}}


def scores(*values):
    """Records 0, 1, ... with these cell accuracies, exact where all cells are right."""
    return {f"test-{i}": {"cell_accuracy": v, "exact": float(v == 1)} for i, v in enumerate(values)}


def run(arm, seed, base=None, cold=None, rl=None):
    stages = {"base": base, "cold_start": cold, "rl": rl}
    return ArmRun(arm, seed, {k: scores(*v) for k, v in stages.items() if v}, BASELINES)


# base is one model; after RL, WeFT - SFT is (.25, .5) for seed 0 and (.25, .25) for seed 1
RUNS = [
    run("sft", 0, [0.0, 0.5], [0.25, 0.5], [0.5, 0.5]),
    run("sft", 1, [0.0, 0.5], [0.25, 0.75], [0.5, 0.75]),
    run("weft", 0, [0.0, 0.5], [0.0, 0.5], [0.75, 1.0]),
    run("weft", 1, [0.0, 0.5], [0.5, 0.5], [0.75, 1.0]),
]


def compared(runs=RUNS, arms=("sft", "weft"), seeds=(0, 1)):
    return compare_runs(runs, arms, seeds, "sudoku")


def entry(result, kind="differences", **keys):
    (found,) = (e for e in result[kind] if keys.items() <= e.items())
    return found


def rows(shift):
    return [0.25 + shift + 0.01 * i for i in range(8)]


def test_scores_by_hand():
    result = compared()
    head = ["arms", "seeds", "task", "n", "metric", "others", "missing", "baselines"]
    expected = [["sft", "weft"], [0, 1], "sudoku", 2, "cell_accuracy", ["exact"], [], BASELINES]
    assert [result[key] for key in head] == expected
    json.dumps(result, allow_nan=False)
    results = result["results"]
    sft = results["sft"]["rl"]
    # seed 0: (.5 + .5) / 2 = 50%, seed 1: (.5 + .75) / 2 = 62.5%
    assert (sft["score"], sft["by_seed"]) == (56.25, {"0": 50.0, "1": 62.5})
    # with two seeds the interval, -23 to 136%, is wider than the range of shares
    assert crossed_mean([[0.5, 0.5], [0.5, 0.75]]).low < 0
    assert sft["ci95"] == [0.0, 100.0]
    # one of WeFT's two records is exact for both seeds
    exact = results["weft"]["rl"]["exact"]
    assert (exact["score"], exact["by_seed"]) == (50.0, {"0": 50.0, "1": 50.0})
    # the base is one measurement, whatever the seed
    base, interval = results["sft"]["base"], record_mean([0.0, 0.5])
    assert (base["score"], base["by_seed"]) == (25.0, {"0": 25.0, "1": 25.0})
    assert base["ci95"] == pytest.approx([100 * interval.low, 100 * interval.high], abs=0.006)


def test_differences_and_gains_by_hand():
    result = compared()
    difference = entry(result, stage="rl", arm="weft", reference="sft")
    # (.25 + .5 + .25 + .25) / 4 = .3125; seed means .375, .25: variance .0078125, / 2 = .00390625;
    # item means .25, .375: the same; residuals +-.0625: 4 * .00390625 / 1 / 4 = .00390625;
    # variance .00390625, half 12.706 * .0625 = .794125
    assert (difference["difference"], difference["seeds"]) == (31.25, [0, 1])
    assert difference["ci95"] == pytest.approx([31.25 - 79.41, 100.0], abs=0.01)
    assert difference["verdict"] == "not distinguishable"
    # exactly solved: SFT none, WeFT the second record for each seed
    assert difference["exact"]["difference"] == 50.0
    # before RL: (-.25, 0) and (.25, -.25), mean -.0625
    assert entry(result, stage="cold_start")["difference"] == -6.25
    # SFT: (.25, 0) and (.25, 0) after RL against its cold start
    gain = entry(result, "gains", arm="sft", stage="rl")
    assert (gain["before"], gain["difference"]) == ("cold_start", 12.5)
    # and (.25, 0), (.25, .25) of the cold start against the base: .75 / 4
    assert entry(result, "gains", arm="sft", stage="cold_start")["difference"] == 18.75
    assert [e["arm"] for e in result["gains"]] == ["sft", "sft", "weft", "weft"]


def test_the_first_arm_is_the_reference():
    swapped = entry(compared(arms=["weft", "sft"]), stage="rl")
    keys = ("arm", "reference", "difference")
    assert [swapped[key] for key in keys] == ["sft", "weft", -31.25]
    three = [*RUNS, run("nll", 0, [0.0, 0.5], [0.0, 0.5], [0.0, 0.5])]
    for arm in ("weft", "nll"):
        assert entry(compared(three, ["sft", "weft", "nll"]), stage="rl", arm=arm, reference="sft")


def test_records_are_paired_by_id():
    def backwards(run):
        stages = {stage: dict(reversed(rows.items())) for stage, rows in run.scores.items()}
        return ArmRun(run.arm, run.seed, stages, BASELINES)

    mixed = [backwards(each) if each.seed else each for each in RUNS]
    assert compared(mixed) == compared()
    one = compared([RUNS[0], backwards(RUNS[2])], seeds=[0])
    # (.25, .5), not (.5, .25): with one seed, over records alone; variance .03125, / 2, t 12.706
    difference = entry(one, stage="rl")
    assert (difference["difference"], difference["ci95"]) == (37.5, [-100.0, 100.0])
    assert "superiority" not in difference


def three_seeds(arms, values):
    """Runs after RL of three seeds; values: records of an arm and seed."""
    return [run(arm, seed, rl=values(arm, seed)) for seed in range(3) for arm in arms]


def test_superiority_and_smallest_visible_by_hand():
    runs = three_seeds(["sft", "weft"], lambda arm, s: rows(0.1 * (s - 0.5) * (arm == "weft")))
    # differences -.05, .05, .15 of the seeds: two of three are above; mean .05, error .1 / sqrt(3),
    # 2 degrees of freedom: t = 4.303 for the interval, 1.061 for four in five
    difference, error = entry(compared(runs, seeds=[0, 1, 2]), stage="rl"), 0.1 / 3**0.5
    assert difference["superiority"] == pytest.approx(2 / 3, abs=1e-4)
    visible = 100 * (4.303 + 1.061) * error
    assert difference["smallest_visible"] == pytest.approx(visible, abs=0.1)
    t = 0.05 / error
    assert difference["p"] == pytest.approx(1 - t / (2 + t * t) ** 0.5, abs=1e-4)


def test_verdicts_of_clear_differences():
    shifts = {"sft": 0.0, "weft": 0.25, "nll": -0.25}
    runs = three_seeds(shifts, lambda arm, s: rows(shifts[arm] + 0.001 * s * (arm == "nll")))
    result = compared(runs, [*shifts], [0, 1, 2])
    assert [each["verdict"] for each in result["differences"]] == ["better", "worse"]
    # t 2.306 with 8 degrees of freedom * 25 / 9
    assert result["differences"][0]["ci95"] == pytest.approx([18.6, 31.4], abs=0.05)
    single = [run(arm, 0, rl=[value]) for arm, value in (("sft", 0.25), ("weft", 0.75))]
    one = entry(compared(single, seeds=[0]))
    assert (one["difference"], one["verdict"]) == (50.0, "not distinguishable")


def test_one_of_several_arms_must_differ_more_to_show():
    arms = ["sft", "weft", "nll"]
    runs = [
        run(arm, seed, rl=[0.1 + 0.1 * seed * place] * 30)
        for seed in range(5)
        for place, arm in enumerate(arms)
    ]
    two = compared([each for each in runs if each.arm != "nll"], arms[:2], range(5))
    three = compared(runs, arms, range(5))
    # seed means 0, .1, .2, .3, .4: variance .025 / 5, no other part; t with 4 degrees at .05, .025
    # and .4: 2.776, 3.495, .941
    error = 100 * 0.005**0.5
    for result, point in ((two, 2.776), (three, 3.495)):
        visible = entry(result, arm="weft", stage="rl")["smallest_visible"]
        assert visible == pytest.approx((point + 0.941) * error, abs=0.01)


def test_a_verdict_among_many_holds_for_all_together():
    def rows(seed, shift, name=""):
        rng = random.Random(f"{seed} {name}")
        return [0.4 + shift + rng.uniform(-0.1, 0.1) for _ in range(12)]

    def weft(arms):
        shifts = {"sft": 0.0, "weft": 0.105, "nll": 0.0001, "dream": 0.0002}
        runs = [run(a, seed, rl=rows(seed, shifts[a], a)) for a in arms for seed in range(4)]
        return entry(compared(runs, arms, range(4)), arm="weft")

    alone, among = weft(["sft", "weft"]), weft(["sft", "weft", "nll", "dream"])
    assert (alone["difference"], alone["p"]) == (among["difference"], among["p"])
    assert alone["p"] == alone["p_holm"]
    assert among["p_holm"] == pytest.approx(3 * among["p"])
    assert 0.05 / 3 < among["p"] < 0.05, among["p"]
    assert (alone["verdict"], among["verdict"]) == ("better", "not distinguishable")


def test_missing_runs():
    # WeFT's seed 1 has not reached RL: its cold start still counts
    result = compared([*RUNS[:3], run("weft", 1, [0.0, 0.5], [0.5, 0.5])])
    assert result["missing"] == ["weft-seed1"]
    difference = entry(result, stage="rl")
    # seed 0 alone on both sides: (.25, .5)
    assert (difference["seeds"], difference["difference"]) == ([0], 37.5)
    assert entry(result, stage="cold_start")["seeds"] == [0, 1]
    assert result["results"]["sft"]["rl"]["by_seed"].keys() == {"0", "1"}
    assert "weft-seed1" in to_markdown(result)
    # no seed in common
    result = compared([RUNS[0], run("weft", 0), run("sft", 1), RUNS[3]])
    assert (result["missing"], result["differences"]) == (["sft-seed1", "weft-seed0"], [])
    assert len(result["gains"]) == 4
    assert sum("cannot be compared" in line for line in notes(result)) == 2
    with pytest.raises(ValueError, match="none has been evaluated"):
        compared([run("weft", 0), run("sft", 1)])
    # no base was evaluated
    runs = [run(r.arm, r.seed, None, [0.0, 0.5], [0.5, 0.5]) for r in RUNS]
    assert [*compared(runs)["results"]["sft"]] == ["cold_start", "rl"]
    assert [e["stage"] for e in compared(runs)["gains"]] == ["rl", "rl"]
    other = ArmRun("weft", 0, {"rl": {"x-0": {"cell_accuracy": 1.0, "exact": 1.0}}}, {})
    with pytest.raises(UserError, match=r"weft-seed0: .* rl .*sft-seed0"):
        compared([RUNS[0], other], seeds=[0])


def write_run(folder, stage, rows, n, task="sudoku"):
    path = folder / "eval.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    results[stage] = {task: {"n": n, "score": 0.0, "ci95": [0, 0], "baselines": BASELINES}}
    folder.mkdir(exist_ok=True)
    path.write_text(json.dumps(results))
    lines = [{"id": name, "task": task, "scores": values} for name, values in rows.items()]
    write_lines(folder / "completions" / f"eval-{stage}.jsonl", lines)


def test_reading_a_run_directory(tmp_path):
    write_run(tmp_path, "base", scores(0.0, 0.5), 2)
    write_run(tmp_path, "weft", scores(0.25, 0.5), 2)
    # RL is being evaluated: lines, but nothing in eval.json
    write_lines(tmp_path / "completions" / "eval-rl.jsonl", [{"id": "a", "task": "sudoku"}])
    expected = {"base": scores(0.0, 0.5), "cold_start": scores(0.25, 0.5)}
    assert read_arm_run(tmp_path, "weft", 3, "sudoku") == ArmRun("weft", 3, expected, BASELINES)
    assert read_arm_run(tmp_path, "weft", 3, "countdown").scores == {}
    assert read_arm_run(tmp_path / "none", "weft", 3, "sudoku").scores == {}
    write_run(tmp_path, "rl", scores(0.0, 0.5), 3)
    with pytest.raises(UserError, match=r"eval-rl\.jsonl: .*2.*eval\.json.*3"):
        read_arm_run(tmp_path, "weft", 0, "sudoku")


def test_runs_with_other_options_are_refused(tmp_path):
    def configure(name, **options):
        (tmp_path / name).mkdir(exist_ok=True)
        text = json.dumps({"task": "sudoku", "rl": {"max_steps": 3}, "versions": {}} | options)
        (tmp_path / name / "config.yaml").write_text(text)

    def check(*seeds, arms=("sft", "weft"), refused=None):
        if refused is None:
            require_same_options(tmp_path, arms, seeds)
        else:
            with pytest.raises(UserError, match=refused):
                require_same_options(tmp_path, arms, seeds)

    configure("sft-seed0", seed=0, stages=["sft", "rl"], out="a", versions={"torch": "2"})
    configure("weft-seed0", seed=0, stages=["weft", "rl"], out="b", trackers=["wandb"])
    check(0, 1)  # those of seed 1 do not exist yet
    configure("weft-seed1", seed=1, task="countdown", rl={"max_steps": 4})
    check(0, 1, refused=r"weft-seed1: .* sft-seed0 .*: rl.max_steps, task\)")
    check(0)
    # an option that only one has: the other's revision did not know it, or a difference
    configure("weft-seed0", seed=0, cold_start={"a": None}, revision="b")
    check(0)
    configure("sft-seed0", seed=0, revision="b")
    check(0, refused=r"weft-seed0: .*: cold_start.a\)")
    # two runs of one revision are compared, though the first run does not know the option
    configure("sft-seed0", seed=0, revision="a")
    configure("sft-seed2", seed=2, revision="b", cold_start={"a": 1})
    check(0, 2, refused=r"weft-seed0: .* sft-seed2 .*: cold_start.a\)")
    (tmp_path / "sft-seed0" / "config.yaml").write_text("")
    check(0, arms=["sft"])  # not begun
    (tmp_path / "sft-seed0" / "eval.json").write_text("{}")
    check(0, arms=["sft"], refused=r"sft-seed0: .*config\.yaml")
