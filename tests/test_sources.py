"""Reading cold-start records from every kind of place, and choosing among them."""

import json
import os
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

from weft_rl.config.cold_start import DataConfig
from weft_rl.data.hub import hub_records
from weft_rl.data.trace_selection import Rejects, read_traces
from weft_rl.data.trace_sources import PUBLISHED, is_held_out
from weft_rl.errors import UserError

FIXTURE = Path(__file__).parent / "fixtures" / "s1k_schema_8.jsonl"
GOOD = {"question": "q", "thinking_trajectories": ["think"], "attempt": "a"}


def rows(count, **more):
    return [GOOD | {"question": f"q{i}"} | more for i in range(count)]


def mixture(count):
    """Records of 0, 10, 20, ... tokens."""
    answer = "<think>think</think>a"
    return [
        {
            "messages": [
                {"role": "user", "content": f"q{i}"},
                {"role": "assistant", "content": answer},
            ],
            "num_tokens": 10 * i,
            "source": "math",
        }
        for i in range(count)
    ]


def write(path, some):
    text = "".join(json.dumps(row) + "\n" for row in some)
    path.write_text(text)
    return str(path)


def write_parquet(path, some):
    parquet.write_table(pyarrow.Table.from_pylist(some), path)
    return str(path)


def read(data, reject=None, **options):
    options = DataConfig(**options)
    return read_traces(str(data), options, reject or Rejects(options.bad_records))


def contents(traces):
    return [replace(trace, source="") for trace in traces]


def test_real_records_are_read():
    traces = read(FIXTURE)
    assert [trace.source for trace in traces] == [f"{FIXTURE}:{line}" for line in range(1, 9)]
    lines = [json.loads(line) for line in FIXTURE.read_text().splitlines()]
    for trace, row in zip(traces, lines, strict=True):
        assert trace.question == row["question"]
        assert trace.reasoning == row["thinking_trajectories"][0]
        assert trace.answer == row["attempt"]


def test_every_place_gives_the_same_traces(tmp_path):
    some = rows(600)  # more than are decoded at a time
    wanted = contents(read(write(tmp_path / "a.jsonl", some)))
    one = write_parquet(tmp_path / "a.parquet", some)
    assert contents(read(one)) == wanted
    assert read(one)[299].source == f"{one}: record 300"
    folder = tmp_path / "folder" / "data"
    folder.mkdir(parents=True)
    write_parquet(folder / "train-00000-of-00002.parquet", some[:400])
    write(folder / "train-00001-of-00002.jsonl", some[400:])
    hidden = tmp_path / "folder" / ".cache"
    hidden.mkdir()
    write(hidden / "other.jsonl", rows(1))
    (tmp_path / "folder" / "README.md").write_text("no records")
    assert contents(read(tmp_path / "folder")) == wanted
    made = datasets.Dataset.from_list(some)
    made.save_to_disk(tmp_path / "saved")
    assert contents(read(tmp_path / "saved")) == wanted
    assert read(tmp_path / "saved")[0].source == f"{tmp_path / 'saved'}: record 1"
    datasets.DatasetDict({"test": made.select([0]), "train": made}).save_to_disk(tmp_path / "dict")
    assert contents(read(tmp_path / "dict")) == wanted


def test_mixture_of_thoughts_is_drawn_by_seed_from_what_is_short_enough(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", mixture(40))
    chosen = read(path, num_records=5, below_tokens=200)
    assert len(chosen) == 5
    assert all(trace.num_tokens < 200 for trace in chosen)
    assert chosen == sorted(chosen, key=lambda trace: trace.num_tokens)  # in the file's order
    assert chosen == read(path, num_records=5, below_tokens=200)
    assert chosen != read(path, num_records=5, below_tokens=200, draw_seed=43)
    # 0, 10, ... 190
    assert len(read(path, below_tokens=200)) == 20
    # more records of the same lots
    assert set(chosen) < set(read(path, num_records=10, below_tokens=200))


def test_every_record_is_as_likely_to_be_drawn(tmp_path):
    path = write(tmp_path / "a.jsonl", rows(6))
    drawn = Counter(
        trace.question for seed in range(600) for trace in read(path, num_records=2, draw_seed=seed)
    )
    # 600 x 2/6 = 200 each, standard deviation sqrt(600 x 1/3 x 2/3) = 11.5
    assert all(abs(drawn[f"q{i}"] - 200) < 4 * 11.5 for i in range(6))


def test_the_papers_sets_by_their_names(monkeypatch):
    asked = []

    def load_dataset(place, configuration, split):
        asked.append((place, configuration, split))
        return datasets.Dataset.from_list(mixture(4000) if configuration else rows(3))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert len(read("s1k")) == len(read("simplescaling/s1K")) == 3
    assert read("s1k")[2].source == "simplescaling/s1K: record 3"
    with pytest.raises(UserError, match=r"num_records=3000: only 250 records of data=openr1-3k"):
        read("openr1-3k")  # 250 of the made-up records are below 2,500 tokens
    assert len(read("openr1-3k", num_records=7)) == 7
    assert len(read("openr1-3k", below_tokens=10**6)) == 3000
    assert set(asked) == {
        ("simplescaling/s1K", None, "train"),
        ("open-r1/Mixture-of-Thoughts", "all", "train"),
    }
    assert {*PUBLISHED} == {"s1k", "s1k-1.1", "openr1-3k"}


def test_the_hub_without_a_network_is_a_users_mistake(tmp_path):
    code = (
        "import huggingface_hub.utils._http as http\n"
        "http.time.sleep = lambda s: None\n"
        "from weft_rl.config.schema import DataConfig\n"
        "from weft_rl.data.trace_selection import Rejects, read_traces\n"
        "read_traces('s1k', DataConfig(), Rejects('error'))"
    )
    # a port that refuses: the library tries six times
    offline = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"}
    offline["HF_HOME"] = str(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | offline
    )
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("weft_rl.errors.UserError: data=s1k: could not be loaded")
    assert "save it on this machine" in last
    assert "Retrying" not in done.stderr


@pytest.mark.parametrize(("terminal", "offline"), [(True, False), (False, False), (True, True)])
def test_a_terminal_is_told_that_the_hub_is_asked(monkeypatch, capsys, terminal, offline):
    """Without a network `datasets` is silent for half a minute."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
    two = datasets.Dataset.from_list(rows(2))
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: two)
    for reader in (lambda: read("s1k"), lambda: hub_records("gsm8k", "simplescaling/s1K")):
        with suppress(UserError):  # these are no records of gsm8k
            reader()
        said = capsys.readouterr().err
        assert said.startswith("asking the hub for simplescaling/s1K ") == (
            terminal and not offline
        )


def test_a_file_wins_over_a_name_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("owner").mkdir()
    write(Path("owner/name"), rows(2))
    write(Path("s1k"), rows(1))
    assert (len(read("owner/name")), len(read("s1k"))) == (2, 1)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        (b"{not json", 2, "not JSON"),
        (b"[1]", 2, "must be a JSON object"),
        (b'{"question": "\xff"}', 2, "is not UTF-8 text"),
        (b'{"question": "caf\xe9"}', 2, "is not UTF-8 text"),
        (json.dumps(GOOD | {"attempt": ""}).encode(), 2, "attempt must be a text"),
        (b'{"text": "x"}', 2, "columns [text] fit no schema"),
        (b'{"messages": [{"role": "user", "content": "q"}]}', 2, "there is no answer to train on"),
        (json.dumps(GOOD | {"id": 7, "cot": None}).encode(), 2, "has the id 7 of the record at"),
    ],
)
def test_a_bad_record_is_named_or_left_out_and_counted(tmp_path, text, line, said):
    path = tmp_path / "a.jsonl"
    first, last = rows(2, id=7)
    del last["id"]
    path.write_bytes(b"\n".join([json.dumps(first).encode(), text, json.dumps(last).encode()]))
    with pytest.raises(UserError) as error:
        read(path)
    assert str(error.value).startswith(f"{path}:{line}: {said}"[: len(f"{path}:{line}: ")])
    assert said in str(error.value)
    assert str(error.value).endswith("cold_start.data.bad_records=skip")
    assert "\n" not in str(error.value)
    reject = Rejects("skip")
    assert [trace.source for trace in read(path, reject)] == [f"{path}:1", f"{path}:3"]
    (reason,) = reject.reasons
    assert reason.startswith(f"{path}:{line}: ")
    assert said in reason


def test_a_repeated_record_names_the_first(tmp_path):
    path = write(tmp_path / "a.jsonl", [*rows(2), rows(1)[0]])
    rejects = Rejects("error")
    assert [trace.source for trace in read(path, rejects)] == [f"{path}:1", f"{path}:2"]
    assert rejects.repeated == [f"{path}:3: has the content of the record at {path}:1"]
    with pytest.raises(UserError, match=f"a.jsonl:3: has the content of the record at {path}:1"):
        read(path, bad_records="strict")
    # across files as well; another id does not make it another record
    folder = tmp_path / "folder"
    folder.mkdir()
    write(folder / "a.jsonl", rows(1, id="x"))
    write(folder / "b.jsonl", rows(1, id="y"))
    with pytest.raises(UserError, match=f"b.jsonl:1: has the content of .* at {folder}/a.jsonl:1"):
        read(folder, bad_records="strict")


@pytest.mark.parametrize("missing", [None, float("nan"), ""])
def test_records_without_an_id_do_not_share_one(tmp_path, missing):
    assert len(read(write(tmp_path / "a.jsonl", rows(3, id=missing)))) == 3


def test_places_without_records_to_train_on(tmp_path):
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n\n")
    with pytest.raises(UserError, match=r"empty.jsonl: holds no records; name one"):
        read(empty)
    bad = write(tmp_path / "bad.jsonl", [{"text": "x"}] * 3)
    with pytest.raises(UserError, match=r"holds no records; 3 left out, .*bad.jsonl:1"):
        read(bad, bad_records="skip")
    with pytest.raises(UserError, match="holds no records below 5 tokens"):
        read(write_parquet(tmp_path / "a.parquet", mixture(3)[1:]), below_tokens=5)
    with pytest.raises(UserError, match=r"a.jsonl:1: has no num_tokens"):
        read(write(tmp_path / "a.jsonl", rows(1)), below_tokens=5)
    with pytest.raises(UserError, match=r"num_records=3: only 2 records .* try 2"):
        read(write(tmp_path / "two.jsonl", rows(2)), num_records=3)


@pytest.mark.parametrize(
    "place", ["missing.jsonl", "../missing", "~/missing", "missing", "a/b.parquet", "a/b/c"]
)
def test_a_place_that_is_not_there(place):
    with pytest.raises(UserError, match=f"{place}: cannot be read"):
        read(place)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "test.jsonl",
            "dev.jsonl",
            "val.jsonl",
            "valid.jsonl",
            "validation.parquet",
            "eval.jsonl",
        ),
        *("gsm8k_test.jsonl", "test-00000-of-00001.parquet", "TEST.JSONL", "testSet.jsonl"),
        *("heldout.jsonl", "held_out.jsonl", "held-out.2.jsonl", "HeldOut.jsonl", "my.dev.jsonl"),
        *("test/0.jsonl", "data/validation/0.parquet", "test1.jsonl.gz", "evaluation.ndjson"),
    ],
)
def test_names_of_held_out_records(name):
    assert is_held_out(name)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "testimonials.jsonl",
            "contest.jsonl",
            "latest.jsonl",
            "developers.jsonl",
            "values.jsonl",
        ),
        *("evaluate.jsonl", "medieval.jsonl", "device.jsonl", "valentine.jsonl", "attested.jsonl"),
        *("train.jsonl", "train-00000-of-00002.parquet", "train_without_test.jsonl", "0.jsonl"),
        *("train/test.jsonl", "out.jsonl", "held.jsonl", "protests.jsonl", "invalid.jsonl"),
    ],
)
def test_names_of_records_to_train_on(name):
    assert not is_held_out(name)


def test_a_folder_takes_its_files_by_any_case(tmp_path):
    some = rows(4)
    for i, name in enumerate(("a.JSONL", "b.ndjson", "c.Parquet", "d.jsonl.gz")):
        if name.lower().endswith("parquet"):
            write_parquet(tmp_path / name, some[i : i + 1])
        else:
            write(tmp_path / name, some[i : i + 1])
    (tmp_path / "notes.json").write_text("{}")
    assert [trace.question for trace in read(tmp_path)] == [row["question"] for row in some]
    write(tmp_path / "dev.jsonl", rows(1))
    with pytest.raises(UserError, match=r"dev\.jsonl: "):
        read(tmp_path)
    (tmp_path / "dev.jsonl").rename(tmp_path / "testimonials.txt")
    os.mkfifo(tmp_path / "e.jsonl")
    with pytest.raises(UserError, match=r"e\.jsonl: cannot be read"):
        read(tmp_path)


def test_of_a_saved_data_set_only_what_is_used_is_read(tmp_path):
    """A time beyond the year 9999 has no value in Python; the formats of tensors are left."""
    late = pyarrow.array([2**62, 2**62], pyarrow.timestamp("us"))
    made = datasets.Dataset.from_list(rows(2))
    made = datasets.Dataset(made.data.table.append_column("at", late)).with_format("numpy")
    made.save_to_disk(tmp_path / "saved")
    assert contents(read(tmp_path / "saved")) == contents(
        read(write(tmp_path / "a.jsonl", rows(2)))
    )
    made.select_columns(["at"]).save_to_disk(tmp_path / "late")
    with pytest.raises(UserError, match=r"late: record 1: columns \[at\] fit no schema"):
        read(tmp_path / "late")


def test_folders_and_files_that_are_no_data_sets(tmp_path):
    with pytest.raises(UserError, match=r"holds no .jsonl or .parquet file"):
        read(tmp_path)
    write(tmp_path / "train.jsonl", rows(1))
    held_out = tmp_path / "test-00000.jsonl"
    write(held_out, rows(1))
    with pytest.raises(UserError, match=r"test-00000.jsonl: is named like held-out records"):
        read(tmp_path)
    torn = tmp_path / "torn.parquet"
    whole = Path(write_parquet(tmp_path / "whole.parquet", rows(9))).read_bytes()
    for content in (
        b"",
        b"no parquet",
        whole[: len(whole) // 2],
        whole[:4] + b"x" * 400 + whole[404:],
    ):
        torn.write_bytes(content)
        with pytest.raises(
            UserError, match=r"torn.parquet: cannot be read as Parquet after record 0"
        ):
            read(torn)
    made = datasets.Dataset.from_list(rows(2))
    datasets.DatasetDict({"a": made, "b": made}).save_to_disk(tmp_path / "dict")
    with pytest.raises(UserError, match="has no split train; name the folder of a, b"):
        read(tmp_path / "dict")
    broken = tmp_path / "dict" / "a"
    next(broken.glob("*.arrow")).write_bytes(b"torn")
    with pytest.raises(UserError, match="dict/a: cannot be read"):
        read(broken)
