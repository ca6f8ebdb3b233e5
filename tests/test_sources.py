"""Reading cold-start records from every kind of source, and drawing from them."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import datasets
import pyarrow
import pytest
from pyarrow import parquet
from refusals import refusal
from run_folders import read_lines, write_lines, written

from weft_rl.config.cold_start import DataConfig
from weft_rl.data.rejects import Rejects
from weft_rl.data.sources import PUBLISHED, is_held_out, read_traces
from weft_rl.data.tasks import load_records
from weft_rl.errors import UserError

FIXTURE = Path(__file__).parent / "fixtures" / "s1k_schema_8.jsonl"
GOOD = {"question": "q", "thinking_trajectories": ["think"], "attempt": "a"}


def rows(count, **more):
    return [GOOD | {"question": f"q{i}"} | more for i in range(count)]


def mixture(count):
    """Records of 0, 10, 20, ... tokens."""
    answer = {"role": "assistant", "content": "<think>think</think>a"}
    chats = [[{"role": "user", "content": f"q{i}"}, answer] for i in range(count)]
    return [{"messages": chat, "num_tokens": 10 * i} for i, chat in enumerate(chats)]


def write_parquet(path, some):
    parquet.write_table(pyarrow.Table.from_pylist(some), path)
    return str(path)


def read(data, reject=None, **options):
    options = DataConfig(**options)
    return read_traces(str(data), options, reject or Rejects(options.bad_records))


def contents(traces):
    return [replace(trace, source="") for trace in traces]


def test_real_records_are_read():
    traces, lines = read(FIXTURE), read_lines(FIXTURE)
    assert [trace.source for trace in traces] == [f"{FIXTURE}:{line}" for line in range(1, 9)]
    assert [(trace.question, trace.reasoning, trace.answer) for trace in traces] == [
        (row["question"], row["thinking_trajectories"][0], row["attempt"]) for row in lines
    ]


def test_every_source_gives_the_same_traces(tmp_path):
    some = rows(600)  # more than are decoded at a time
    expected = contents(read(write_lines(tmp_path / "a.jsonl", some)))
    one = write_parquet(tmp_path / "a.parquet", some)
    folder, hidden = tmp_path / "folder" / "data", tmp_path / "folder" / ".cache"
    folder.mkdir(parents=True)
    hidden.mkdir()
    write_parquet(folder / "train-00000-of-00002.parquet", some[:400])
    write_lines(folder / "train-00001-of-00002.jsonl", some[400:])
    write_lines(hidden / "other.jsonl", rows(1))
    saved = datasets.Dataset.from_list(some)
    saved.save_to_disk(tmp_path / "saved")
    both = datasets.DatasetDict({"test": saved.select([0]), "train": saved})
    both.save_to_disk(tmp_path / "dict")
    for source in (one, *(tmp_path / name for name in ("folder", "saved", "dict"))):
        assert contents(read(source)) == expected
    assert read(one)[299].source == f"{one}: record 300"
    assert read(tmp_path / "saved")[0].source == f"{tmp_path / 'saved'}: record 1"


def test_mixture_of_thoughts_is_drawn_by_seed_from_what_is_short_enough(tmp_path):
    path, below = write_parquet(tmp_path / "a.parquet", mixture(40)), {"below_tokens": 200}
    drawn, again, others, more = (
        read(path, num_records=count, draw_seed=seed, **below)
        for count, seed in ((5, 42), (5, 42), (5, 43), (10, 42))
    )
    # 0, 10, ... 190
    assert [trace.num_tokens for trace in read(path, **below)] == [*range(0, 200, 10)]
    assert drawn == again == sorted(drawn, key=lambda trace: trace.num_tokens)  # the file's order
    assert (len(drawn), drawn != others) == (5, True)
    assert set(drawn) < set(more)  # more records of the same lots


def test_every_record_is_as_likely_to_be_drawn(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", rows(6))
    seeds = range(600)
    drawn = [read(path, num_records=2, draw_seed=seed) for seed in seeds]
    counts = Counter(trace.question for traces in drawn for trace in traces)
    # 600 x 2/6 = 200 each, standard deviation sqrt(600 x 1/3 x 2/3) = 11.5
    assert all(abs(counts[f"q{i}"] - 200) < 4 * 11.5 for i in range(6))


@pytest.mark.slow
def test_the_papers_sets_by_their_names(monkeypatch):
    asked = set()

    def load_dataset(place, configuration, split):
        asked.add((place, configuration, split))
        return datasets.Dataset.from_list(mixture(3100) if configuration else rows(3))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert len(read("s1k")) == len(read("simplescaling/s1K")) == 3
    assert read("s1k")[2].source == "simplescaling/s1K: record 3"
    # 250 of the made-up records are below 2,500 tokens
    assert re.search(r"num_records=3000: .* 250 .*data=openr1-3k", refusal(read, "openr1-3k"))
    assert len(read("openr1-3k", num_records=7)) == 7
    assert len(read("openr1-3k", below_tokens=10**6)) == 3000
    thoughts = ("open-r1/Mixture-of-Thoughts", "all", "train")
    assert asked == {("simplescaling/s1K", None, "train"), thoughts}
    assert {*PUBLISHED} == {"s1k", "s1k-1.1", "openr1-3k"}


@pytest.mark.slow
def test_the_hub_without_a_network_is_a_users_mistake(tmp_path):
    code = (
        "import huggingface_hub.utils._http as http\n"
        "http.time.sleep = lambda s: None\n"
        "from weft_rl.config.cold_start import DataConfig\n"
        "from weft_rl.data.rejects import Rejects\n"
        "from weft_rl.data.sources import read_traces\n"
        "read_traces('s1k', DataConfig(), Rejects('error'))"
    )
    # a port that refuses: the library tries six times
    offline = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path)}
    command, env = [sys.executable, "-c", code], os.environ | offline
    error = subprocess.run(command, capture_output=True, text=True, env=env).stderr
    assert error.strip().splitlines()[-1].startswith("weft_rl.errors.UserError: data=s1k: ")
    assert "Retrying" not in error


@pytest.mark.parametrize(("terminal", "offline"), [(True, False), (False, False), (True, True)])
def test_a_terminal_shows_that_the_hub_is_asked(monkeypatch, capsys, terminal, offline):
    """Without a network `datasets` is silent for half a minute."""
    two = datasets.Dataset.from_list(rows(2))
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: two)
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
    for reader in (lambda: read("s1k"), lambda: load_records("gsm8k", "simplescaling/s1K")):
        with suppress(UserError):  # these are not records of gsm8k
            reader()
        assert ("simplescaling/s1K" in capsys.readouterr().err) == (terminal and not offline)


def test_a_file_wins_over_a_name_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("owner").mkdir()
    write_lines(Path("owner/name"), rows(2))
    write_lines(Path("s1k"), rows(1))
    assert (len(read("owner/name")), len(read("s1k"))) == (2, 1)


BAD = [
    *((b"{not json", "JSON"), (b'{"question": "caf\xe9"}', "UTF-8"), (b'{"a": "x"}', "[a]")),
    (json.dumps(GOOD | {"attempt": ""}).encode(), "attempt"),
    (b'{"messages": [{"role": "user", "content": "q"}]}', "messages"),
    (json.dumps(GOOD | {"id": 7, "cot": None}).encode(), "id 7"),
]


@pytest.mark.parametrize(("text", "key"), BAD)
def test_a_bad_record_is_named_or_left_out_and_counted(tmp_path, text, key):
    first, last = (json.dumps(row).encode() for row in (*rows(1, id=7), GOOD))
    path, reject = written(tmp_path / "a.jsonl", b"\n".join([first, text, last])), Rejects("skip")
    message = refusal(read, path)
    assert "cold_start.data.bad_records=skip" in message
    assert [trace.source for trace in read(path, reject)] == [f"{path}:1", f"{path}:3"]
    (reason,) = reject.reasons
    for each in (message, reason):
        assert each.startswith(f"{path}:2: ")
        assert key in each


def test_a_repeated_record_names_the_first(tmp_path):
    path, rejects = write_lines(tmp_path / "a.jsonl", [*rows(2), rows(1)[0]]), Rejects("error")
    assert [trace.source for trace in read(path, rejects)] == [f"{path}:1", f"{path}:2"]
    (repeated,) = rejects.repeated
    for message in (repeated, refusal(read, path, bad_records="strict")):
        assert (f"{path}:3" in message, f"{path}:1" in message) == (True, True)
    # across files as well; another id does not make it another record
    one, two = (write_lines(tmp_path / f"b/{name}.jsonl", rows(1, id=name)) for name in "ab")
    message = refusal(read, tmp_path / "b", bad_records="strict")
    assert (message.startswith(f"{two}:1: "), f"{one}:1" in message) == (True, True)
    for missing in (None, float("nan"), ""):
        assert len(read(write_lines(tmp_path / "a.jsonl", rows(3, id=missing)))) == 3


def test_sources_without_records_to_train_on(tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n\n")
    bad = write_lines(tmp_path / "bad.jsonl", [{"text": "x"}] * 3)
    long = write_parquet(tmp_path / "a.parquet", mixture(3)[1:])
    one, two = (write_lines(tmp_path / f"{n}.jsonl", rows(n)) for n in (1, 2))
    for data, options, message in (
        (tmp_path / "empty.jsonl", {}, r"empty\.jsonl: "),
        (bad, {"bad_records": "skip"}, r"3 left out, .*bad\.jsonl:1"),
        (long, {"below_tokens": 5}, "below 5 tokens"),
        (one, {"below_tokens": 5}, r"/1\.jsonl:1: .*cold_start\.data\.below_tokens"),
        (two, {"num_records": 3}, r"cold_start\.data\.num_records=3: .* try 2"),
        *((name, {}, f"{name}: ") for name in ("missing.jsonl", "../missing", "missing", "a/b/c")),
        *((name, {}, f"{name}: ") for name in ("~/missing", "a/b.parquet")),
    ):
        assert re.search(message, refusal(read, data, **options))


HELD_OUT = """test.jsonl dev.jsonl val.jsonl valid.jsonl validation.parquet eval.jsonl
    gsm8k_test.jsonl test-00000-of-00001.parquet TEST.JSONL testSet.jsonl heldout.jsonl
    held_out.jsonl held-out.2.jsonl HeldOut.jsonl my.dev.jsonl test/0.jsonl test1.jsonl.gz
    data/validation/0.parquet evaluation.ndjson"""
TRAINING = """testimonials.jsonl contest.jsonl latest.jsonl developers.jsonl values.jsonl
    evaluate.jsonl medieval.jsonl device.jsonl valentine.jsonl attested.jsonl train.jsonl 0.jsonl
    train-00000-of-00002.parquet train_without_test.jsonl train/test.jsonl out.jsonl held.jsonl
    protests.jsonl invalid.jsonl"""


def test_names_of_held_out_records():
    assert [name for name in HELD_OUT.split() if not is_held_out(name)] == []
    assert [name for name in TRAINING.split() if is_held_out(name)] == []


def test_a_folder_takes_its_files_by_any_case(tmp_path):
    some = rows(4)
    for name, row in zip(("a.JSONL", "b.ndjson", "c.Parquet", "d.jsonl.gz"), some, strict=True):
        form = write_parquet if name.endswith("Parquet") else write_lines
        form(tmp_path / name, [row])
    (tmp_path / "notes.json").write_text("{}")
    assert [trace.question for trace in read(tmp_path)] == [row["question"] for row in some]
    dev = write_lines(tmp_path / "dev.jsonl", rows(1))
    assert refusal(read, tmp_path).startswith(f"{dev}: ")
    dev.rename(tmp_path / "testimonials.txt")
    os.mkfifo(tmp_path / "e.jsonl")
    assert refusal(read, tmp_path).startswith(f"{tmp_path / 'e.jsonl'}: ")


def test_of_a_saved_data_set_only_what_is_used_is_read(tmp_path):
    """A time beyond the year 9999 has no value in Python; formats of tensors are ignored."""
    late = pyarrow.array([2**62, 2**62], pyarrow.timestamp("us"))
    table = datasets.Dataset.from_list(rows(2)).data.table.append_column("at", late)
    saved = datasets.Dataset(table).with_format("numpy")
    saved.save_to_disk(tmp_path / "saved")
    expected = contents(read(write_lines(tmp_path / "a.jsonl", rows(2))))
    assert contents(read(tmp_path / "saved")) == expected
    saved.select_columns(["at"]).save_to_disk(tmp_path / "late")
    assert re.search(r"late: record 1: .*\[at\]", refusal(read, tmp_path / "late"))


def test_folders_and_files_that_are_not_data_sets(tmp_path):
    assert refusal(read, tmp_path).startswith(f"data={tmp_path}: ")
    full = Path(write_parquet(tmp_path / "full.parquet", rows(9))).read_bytes()
    damaged = full[:4] + b"x" * 400 + full[404:]
    for content in (b"", b"no parquet", full[: len(full) // 2], damaged):
        torn = written(tmp_path / "torn.parquet", content)
        assert re.search(r"torn\.parquet: .* after record 0", refusal(read, torn))
    saved = datasets.Dataset.from_list(rows(2))
    datasets.DatasetDict({"a": saved, "b": saved}).save_to_disk(tmp_path / "dict")
    assert "train" in refusal(read, tmp_path / "dict")
    broken = tmp_path / "dict" / "a"
    next(broken.glob("*.arrow")).write_bytes(b"torn")
    assert refusal(read, broken).startswith(f"data={broken}: ")
