"""What the environment holds and a run does not need is in none of its files and lines."""

import json
from dataclasses import replace

from kills import command
from lives import live

SECRETS = {
    name: f"secret-{name.lower()}"
    for name in ("HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
}
HOSTILE = "</script><script>alert(1)</script>&lt;b&gt;<!--"


def test_secrets_stay_where_they_are(tmp_path):
    given = command("eval", tmp_path)
    given = replace(given, environment=given.environment | SECRETS)
    life = live(given, tmp_path / "log")
    assert life.status == 0, life.output
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert tmp_path / "run" / "report.html" in files
    for path in files:
        found = [value for value in SECRETS.values() if value.encode() in path.read_bytes()]
        assert found == [], path


def test_whatever_stands_in_a_run_is_text_in_its_report(tmp_path):
    from weft_rl.report.run_page import write_report

    run = tmp_path / "<script>alert(1)<"
    (run / "completions").mkdir(parents=True)
    score = {"score": 50.0, "ci95": [40.0, 60.0], "n": 1}
    (run / "eval.json").write_text(json.dumps({HOSTILE: {HOSTILE: score}, "rl": {"sudoku": score}}))
    values = {"stages": ["rl"], "model": "tiny", "data": HOSTILE, "versions": {HOSTILE: HOSTILE}}
    (run / "config.yaml").write_text(json.dumps(values))
    row = {"stage": "rl", "id": HOSTILE, "prompt": HOSTILE, "completion": HOSTILE, "reward": 1.0}
    (run / "completions" / "eval-rl.jsonl").write_text(json.dumps(row) + "\n")
    played = {"prompt": HOSTILE, "tokens": [HOSTILE], "opened": [1], "confidences": [1], "steps": 1}
    (run / "completions" / "trace-rl.json").write_text(json.dumps({"examples": [played]}))
    page = write_report(run).read_text()
    # the page's own script and its data are all the scripts there are
    assert page.count("<script") == page.count("</script>") == 2
    assert "alert(1)</script>" not in page
    assert "<!--" not in page
    data = page.split('<script type="application/json">')[1].split("</script>")[0]
    assert json.loads(data)["tokens"] == [HOSTILE]
