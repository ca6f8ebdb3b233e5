"""The cold start on files with the tiny model: which records are trained, counted and refused."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from run_folders import read_lines, write_lines

from weft_rl.cli import execute
from weft_rl.config.cold_start import DataConfig
from weft_rl.config.load import load_run_config
from weft_rl.data.sft_examples import encode_traces
from weft_rl.data.toy import cold_start_traces
from weft_rl.data.trace_selection import Rejects, read_traces
from weft_rl.errors import UserError
from weft_rl.models.toy import EOT, tiny_config, tiny_tokenizer
from weft_rl.pipeline.run import main
from weft_rl.stages.cold_start import examples_of
from weft_rl.stages.context import StageContext
from weft_rl.trainers.collator import AnswerCollator

FIXTURE = Path(__file__).parent / "fixtures" / "s1k_schema_8.jsonl"


def row_of(trace):
    answer = {"thinking_trajectories": [trace.reasoning], "attempt": trace.answer}
    return {"question": trace.question} | answer


def rows(count):
    """Records of the tiny world in s1K's schema."""
    return [row_of(trace) for trace in cold_start_traces(count, 0)]


def encode(data, *arguments, rope=False):
    config = load_run_config([f"data={data}", *arguments], command="test")
    context = StageContext(config, Path("never"), "weft", "never")
    network = tiny_config(config.base)
    network.rope = rope
    return examples_of(context, tiny_tokenizer(), network)


def output(capsys):
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("policy", ["drop", "cut_trace", "right"])
def test_the_policy_is_printed_with_its_counts(tmp_path, capsys, policy):
    same = {"question": "Sort: 21", "attempt": "12"}
    some = [same | {"thinking_trajectories": [" 1" * words]} for words in range(1, 21)]
    data = write_lines(tmp_path / "a.jsonl", some)
    all_of = encode(data, "cold_start.data.max_length=250").lengths()
    limit = sorted(all_of)[12]
    over = sum(length > limit for length in all_of)
    capsys.readouterr()
    options = {"max_length": limit, "truncation": policy}
    some = encode(data, *(f"cold_start.data.{key}={value}" for key, value in options.items()))
    kept = 20 - over if policy == "drop" else 20
    assert [len(some), max(some.lengths())] == [kept, limit]
    left_out, cut = (over, 0) if policy == "drop" else (0, over)
    tokens = sum(all_of) - sum(some.lengths())
    counts = f"{left_out} left out, {cut} cut ({policy}), {tokens} tokens dropped"
    assert counts in output(capsys)
    end = tiny_tokenizer().convert_tokens_to_ids(EOT)
    assert sum(one.ids[-1] == end for one in some) == (20 - over if policy == "right" else kept)


def conversation(*answers):
    """A chat with these answers."""
    turns = [turn for answer in answers for turn in (("user", "1+1"), ("assistant", answer))]
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


@pytest.mark.parametrize(("turns", "ends"), [("last", "1 2"), ("all", "1 1 2 1 2")])
def test_trained_answers_and_thoughts_of_chats_are_counted(tmp_path, capsys, turns, ends):
    chats = [conversation("1"), conversation("1", "2"), conversation("1", "2", "<think>3</think>4")]
    some = encode(write_lines(tmp_path / "a.jsonl", chats), f"cold_start.data.chat_turns={turns}")
    trained = len(ends.split()) + 1
    assert [one.index for one in some] == [*range(trained)]
    out = output(capsys)
    assert f"{trained} of 6 answers" in out
    assert "<think>: 1" in out
    # each answer is trained in one example, what comes before it is its prompt
    tokenizer = tiny_tokenizer()
    answers = [tokenizer.decode(one.ids[one.prompt_length :]) for one in some]
    assert answers[:-1] == [f"{text}{EOT}" for text in ends.split()]
    assert answers[-1].startswith("<reasoning>3</reasoning>")
    assert tokenizer.decode(some[-1].ids[: some[-1].prompt_length]).count("1+1") == 3


def test_thoughts_stay_if_told_so(tmp_path, capsys):
    data = write_lines(tmp_path / "a.jsonl", [conversation("<think>1</think>2")])
    (one,) = encode(data, "cold_start.data.think=keep")
    kept = tiny_tokenizer().encode("<think>1</think>2", add_special_tokens=False)
    assert one.ids[one.prompt_length : -1] == kept
    assert "cold_start.data.think=keep" in output(capsys)


def test_a_broken_thought_of_an_earlier_answer_is_a_bad_record(tmp_path):
    data = write_lines(tmp_path / "a.jsonl", [conversation("<think>1", "2"), conversation("3")])
    assert len(encode(data)) == 2  # it is trained on as part of a prompt only
    with pytest.raises(UserError, match=r"a\.jsonl:1: message 2"):
        encode(data, "cold_start.data.chat_turns=all")
    skip = "cold_start.data.bad_records=skip"
    assert len(encode(data, "cold_start.data.chat_turns=all", skip)) == 1


def test_forms_of_chats_in_parquet_files(tmp_path):
    """Only the columns that are used are read."""
    texts = [[{"type": "text", "text": text}] for text in ("1+1", "2")]
    asked = {"role": "user", "content": "1+1", "tool_calls": None}
    call = {"role": "assistant", "content": "2", "tool_calls": [{"id": "1"}]}
    expected = encode(write_lines(tmp_path / "a.jsonl", [conversation("2")]))
    data = tmp_path / "a.parquet"
    for chat in (
        {"conversations": [{"from": "human", "value": "1+1"}, {"from": "gpt", "value": "2"}]},
        {"messages": [{"role": "user", "content": texts[0]}, {"role": "gpt", "content": texts[1]}]},
    ):
        pq.write_table(pa.Table.from_pylist([chat]), data)
        assert encode(data) == expected
    pq.write_table(pa.Table.from_pylist([{"messages": [asked, call]}]), data)
    with pytest.raises(UserError, match=f"{data}.* 1: .*tool"):
        encode(data)


@pytest.mark.parametrize("pad_in_answer", [False, True])
def test_an_end_that_is_padding_as_well_is_trained_once(tmp_path, pad_in_answer):
    """A model without an end of turn ends with its end of text, which pads, too."""
    config = load_run_config([f"data={tmp_path / 'a.jsonl'}"], command="test")
    write_lines(tmp_path / "a.jsonl", [conversation("1"), conversation("1 2 3")])
    network = tiny_config(config.base)
    network.eot_token_id, end = None, network.eos_token_id
    assert network.pad_token_id == end
    some = examples_of(StageContext(config, Path("no"), "weft", "no"), tiny_tokenizer(), network)
    batch = AnswerCollator(end, pad_in_answer)(some)
    trained = [row[row != -100].tolist() for row in batch["labels"]]
    assert [ids.count(end) for ids in trained] == ([5, 1] if pad_in_answer else [1, 1])
    hidden = [0 if pad_in_answer else 4, 0]
    assert (batch["attention_mask"] == 0).sum(-1).tolist() == hidden


def test_records_left_out_are_counted_and_the_first_are_named(tmp_path, capsys):
    some = rows(6)
    some[1], some[3] = {"text": "of no schema"}, some[3] | {"attempt": ""}
    some[4] = {"messages": [{"role": "user", "content": "1"}]}
    data = write_lines(tmp_path / "a.jsonl", [*some, some[2]])
    with pytest.raises(UserError, match=r"a\.jsonl:2: "):
        encode(data)
    assert len(encode(data, "cold_start.data.bad_records=skip")) == 3
    out = output(capsys)
    for part in ("3 left out", "1 left out", *(f"{data}:{line}: " for line in (2, 4, 5, 7))):
        assert part in out
    assert f"{data}:3" in out  # which line 7 repeats


def test_lengths_that_leave_nothing_or_that_no_position_has(tmp_path):
    data, key = write_lines(tmp_path / "a.jsonl", rows(5)), "cold_start.data.max_length"
    with pytest.raises(UserError, match=rf"5 .*{key}=3"):
        encode(data, f"{key}=3", "cold_start.data.truncation=right")
    # token 257 has no learned position, and no network here computes rotary ones beyond
    for rope in (False, True):
        with pytest.raises(UserError, match=f"{key}=9999: .*256"):
            encode(FIXTURE, f"{key}=9999", rope=rope)


def test_real_records_keep_prompt_answer_and_end_when_the_trace_is_cut():
    tokenizer, end = tiny_tokenizer(), 3
    traces = read_traces(str(FIXTURE), DataConfig(), Rejects("error"))
    whole = encode_traces(traces, tokenizer, "d1", end, 10**6).examples
    limit = sorted(whole.lengths())[4]
    cut = encode_traces(traces, tokenizer, "d1", end, limit, "cut_trace")
    assert (len(cut.examples), cut.dropped, cut.cut) == (8, 0, 3)
    for trace, one, other in zip(traces, whole, cut.examples, strict=True):
        # outside the tiny vocabulary every character is a token
        tail = tokenizer.encode(f"</reasoning>\n<answer>{trace.answer}</answer>")
        assert other.ids[: one.prompt_length + 1] == one.ids[: one.prompt_length + 1]
        assert other.ids[-len(tail) - 1 :] == [*tail, end] == one.ids[-len(tail) - 1 :]
        assert limit - 21 < len(other.ids) <= limit or other == one


FEW = [
    *("stages=[weft]", "base.max_steps=4", "base.batch_size=8", "base.examples=40"),
    *("cold_start.epochs=2", "cold_start.batch_size=4", "cold_start.logging_steps=1"),
    "eval.after_each=false",
]


@pytest.mark.slow
def test_the_pipeline_trains_on_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv("WEFT_RL_CACHE", str(tmp_path / "cache"))
    data, out = write_lines(tmp_path / "a.jsonl", rows(10)), tmp_path / "run"
    options = ["pad_in_answer=true", "group_by_length=true", "num_records=8"]
    arguments = [f"data={data}", f"out={out}", *(f"cold_start.data.{option}" for option in options)]
    assert main([*FEW, *arguments]) == 0
    losses = [row["loss"] for row in read_lines(out / "metrics.jsonl") if row["stage"] == "weft"]
    assert len(losses) == 4  # 8 records in batches of 4, twice over
    assert min(losses) > 0


def test_a_bad_file_stops_before_anything_is_written(tmp_path, capsys):
    data, out = tmp_path / "a.jsonl", tmp_path / "never"
    for content in (b"", b'{"question": "\xff"}', b'{"prompt": "q", "completion": "a"}'):
        data.write_bytes(content)
        assert execute("weft_rl.pipeline", main, [*FEW, f"data={data}", f"out={out}"]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert f"{data}:" in error
        assert not out.exists()
