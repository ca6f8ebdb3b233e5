"""The cold start on files with the tiny model: which records are trained, counted and refused."""

from pathlib import Path

import pytest
from run_folders import read_lines, write_lines

from weft_rl.cli import execute
from weft_rl.config.load import load_run_config
from weft_rl.data.toy import cold_start_traces
from weft_rl.errors import UserError
from weft_rl.models.toy import EOT, tiny_config, tiny_tokenizer
from weft_rl.pipeline.run import main
from weft_rl.stages.cold_start import examples_of
from weft_rl.stages.context import StageContext
from weft_rl.trainers.collator import AnswerCollator

FIXTURE = Path(__file__).parent / "fixtures" / "s1k_schema_8.jsonl"


def rows(count):
    """Records of the tiny world in s1K's schema."""
    names = ("question", "thinking_trajectories", "attempt")
    texts = [(each.question, [each.reasoning], each.answer) for each in cold_start_traces(count, 0)]
    return [dict(zip(names, each, strict=True)) for each in texts]


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


FORMS = {"rewrite": "<reasoning>3</reasoning><answer>4</answer>", "keep": "<think>3</think>4"}


@pytest.mark.parametrize("think", FORMS)
@pytest.mark.parametrize(("turns", "ends"), [("last", "1 2"), ("all", "1 1 2 1 2")])
def test_trained_answers_and_thoughts_of_chats_are_counted(tmp_path, capsys, turns, ends, think):
    chats = [conversation("1"), conversation("1", "2"), conversation("1", "2", "<think>3</think>4")]
    options = [f"cold_start.data.chat_turns={turns}", f"cold_start.data.think={think}"]
    some = encode(write_lines(tmp_path / "a.jsonl", chats), *options)
    answers = [*ends.split(), FORMS[think]]
    assert [one.index for one in some] == [*range(len(answers))]
    out = output(capsys)
    for part in (f"{len(answers)} of 6 answers", "<think>: 1", options[1]):
        assert part in out
    # each answer is trained in one example, what comes before it is its prompt
    tokenizer = tiny_tokenizer()
    texts = [tokenizer.encode(f"{answer}{EOT}", add_special_tokens=False) for answer in answers]
    assert [one.ids[one.prompt_length :] for one in some] == texts
    assert tokenizer.decode(some[-1].ids[: some[-1].prompt_length]).count("1+1") == 3


def test_a_broken_thought_of_an_earlier_answer_is_a_bad_record(tmp_path):
    data = write_lines(tmp_path / "a.jsonl", [conversation("<think>1", "2"), conversation("3")])
    assert len(encode(data)) == 2  # it is trained on as part of a prompt only
    with pytest.raises(UserError, match=r"a\.jsonl:1: message 2"):
        encode(data, "cold_start.data.chat_turns=all")
    skip = "cold_start.data.bad_records=skip"
    assert len(encode(data, "cold_start.data.chat_turns=all", skip)) == 1


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
    for content in (b"", b'{"question": "\xff"}', b'{"prompt": "q", "answer": "a"}'):
        data.write_bytes(content)
        assert execute("weft_rl.pipeline", main, [*FEW, f"data={data}", f"out={out}"]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert f"{data}:" in error
        assert not out.exists()
