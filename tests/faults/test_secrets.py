"""What the environment holds and a run does not need is in none of its files and lines."""

import pytest
from kills import command
from lives import live

SECRETS = {
    name: f"secret-{name.lower()}"
    for name in ("HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
}


@pytest.mark.slow
def test_secrets_stay_where_they_are(tmp_path):
    given = command("eval", tmp_path)
    given = given._replace(environment=given.environment | SECRETS)
    life = live(given, tmp_path / "log")
    assert life.status == 0, life.output
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert tmp_path / "run" / "report.html" in files
    for path in files:
        found = [value for value in SECRETS.values() if value.encode() in path.read_bytes()]
        assert found == [], path
