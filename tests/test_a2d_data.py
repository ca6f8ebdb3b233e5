"""Records of stage a2d: built-in prompts, answers, texts, the split and packing."""

import json
from itertools import chain
from math import log
from threading import Thread

import pytest
import torch
from causal_model import write_causal
from tiny_model import write_model

from weft_rl.config.load import load_run_config, to_yaml
from weft_rl.config.overrides import changed_options
from weft_rl.data.self_prompts import self_prompts
from weft_rl.data.sft_examples import Example
from weft_rl.errors import UserError
from weft_rl.evaluation.likelihood import unigram_entropy
from weft_rl.runs.cache import cache_lock
from weft_rl.stages.a2d import AttentionAnnealing, adapted_files
from weft_rl.stages.a2d_data import pack, prepare, read_records
from weft_rl.stages.context import StageContext
from weft_rl.stages.held_out import split
from weft_rl.stages.model_cache import cache_path, store
from weft_rl.stages.self_answers import sample_answers


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_causal(tmp_path_factory.mktemp("causal") / "model")


def config(model, *words):
    options = ["preset=tiny", f"model={model}", "stages=[a2d]", *words]
    return load_run_config(options, command="it")


def records(model, *words):
    options = config(model, *words)
    return read_records(options, adapted_files(options, str(model)))[0]


def chat(question, answer):
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": turns}


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_prompts_are_distinct_and_a_quarter_is_arithmetic():
    prompts = self_prompts(800, 0)
    assert len(set(prompts)) == 800
    assert self_prompts(10, 0) == prompts[:10] != self_prompts(10, 1)
    problems = [prompt for prompt in prompts if any(map(str.isdigit, prompt))]
    assert problems == prompts[3::4]
    assert not any("{" in prompt for prompt in prompts)
    with pytest.raises(ValueError, match="there are 804 prompts"):
        self_prompts(900, 0)


class Writer:
    """Stands for a causal model: writes the given tokens."""

    device = torch.device("cpu")

    def __init__(self, rows):
        self.rows = torch.tensor(rows)

    def generate(self, input_ids, attention_mask, generation_config):
        self.given = input_ids.tolist(), attention_mask.tolist()
        return torch.cat([input_ids, self.rows], dim=1)


def test_an_answer_needs_text_and_an_end(model):
    files = adapted_files(config(model), str(model))
    files.tokenizer.pad_token = "<|endoftext|>"
    end, pad = files.tokenizer.eos_token_id, files.tokenizer.pad_token_id
    yes = files.tokenizer("yes")["input_ids"][0]
    text = files.tokenizer.decode([yes])
    writer = Writer([[yes, end, 0], [end, yes, 0], [yes, yes, yes]])
    options = {"ends": [end], "max_new_tokens": 3, "seed": 0}
    answers = sample_answers(writer, files.tokenizer, [[5], [6, 7], [8]], **options)
    assert answers == [text, None, None]
    # padded on the left, with the tokenizer's padding token
    assert writer.given == ([[pad, 5], [6, 7], [pad, 8]], [[0, 1], [1, 1], [0, 1]])


def test_answers_depend_on_their_seed_only(model):
    files = adapted_files(config(model), str(model))
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(model).eval()

    def answers(seed):
        options = {"ends": range(20), "max_new_tokens": 30, "seed": seed}
        return sample_answers(network, files.tokenizer, [[40, 50], [60]], **options)

    state = torch.get_rng_state()
    first = answers(0)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(1)
    assert answers(0) == first
    assert any(answers(seed) != first for seed in range(1, 5))


def test_packing_by_hand():
    examples = [Example(0, [1, 2, 3], 1), Example(1, [4, 5], 1), Example(2, [6], 0)]
    one, two = pack(examples, 4)
    assert (one.ids, one.labels) == ([1, 2, 3, 6], [-100, 2, 3, 6])
    assert (two.ids, two.labels) == ([4, 5], [-100, 5])


def test_split():
    examples = [Example(i, [i % 7, 1], 1) for i in range(20)]
    train, held_out = split(examples, 3, seed=0)
    assert len(held_out) == 3
    # equal token ids are left out of the training data
    known = {tuple(each.ids) for each in held_out}
    assert train == [each for each in examples if tuple(each.ids) not in known]
    assert split(examples, 3, seed=0)[1] == held_out
    assert any(split(examples, 3, seed)[1] != held_out for seed in range(1, 5))
    assert split(examples, 0, seed=0) == (examples, [])


def test_unigram_entropy_by_hand():
    # token 1 has half of the weight, 2 and 3 a quarter each: 1/2 log 2 + 1/2 log 4
    assert unigram_entropy([[1, 1, 1], [2, 3]]) == pytest.approx(1.5 * log(2))
    assert unigram_entropy([[5, 5, 5]]) == 0


def test_texts_are_cut_and_trained_on_all_tokens(model, tmp_path):
    files = adapted_files(config(model), str(model))
    texts = ["A clip for 48 friends. " * 3, "May"]
    (tmp_path / "a.txt").write_text(texts[0])
    (tmp_path / "b.txt").write_text(texts[1])
    (tmp_path / "table").mkdir()
    table = written(tmp_path / "table" / "t.jsonl", [{"text": text} for text in texts])
    expected = [
        [*files.tokenizer(text)["input_ids"], files.tokenizer.eos_token_id] for text in texts
    ]
    for data in (tmp_path, table):
        pieces = records(model, f"a2d.data={data}", "a2d.max_length=10")
        assert max(len(each.ids) for each in pieces) == 10
        assert all(each.labels == each.ids for each in pieces)
        assert [token for each in pieces for token in each.ids] == [*chain(*expected)]


@pytest.mark.parametrize("name", ["c.jsonl", "c.ndjson.gz", "c.parquet"])
def test_a_folder_of_texts_and_records_is_refused(model, tmp_path, name):
    (tmp_path / "t.txt").write_text("A clip. " * 50)
    (tmp_path / name).write_text("{}")
    kind = name.removesuffix(".gz").removeprefix("c")
    with pytest.raises(UserError, match=rf"\.txt and \{kind}"):
        records(model, f"a2d.data={tmp_path}")


def test_chats_are_trained_on_their_answers(model, tmp_path):
    rows = [chat("1+1?", "2"), {"prompt": "1+2?", "completion": "3"}, chat("?", "x" * 300)]
    short, pair = records(
        model, f"a2d.data={written(tmp_path / 'c.jsonl', rows)}", "a2d.max_length=99"
    )
    files = adapted_files(config(model), str(model))
    for example, question, answer in ((short, "1+1?", "2"), (pair, "1+2?", "3")):
        turns = chat(question, answer)["messages"]
        text = files.tokenizer.apply_chat_template(turns, tokenize=False).removesuffix("\n")
        assert files.tokenizer.decode(example.ids) == text
        trained = [label for label in example.labels if label != -100]
        assert files.tokenizer.decode(trained) == f"{answer}<|im_end|>"


def test_an_answer_ends_with_the_tokenizers_end_token(model, tmp_path):
    """Also if config.json lists more end tokens, as Qwen3's generation settings do."""
    data = written(tmp_path / "chats.jsonl", [chat("a", "yes")])
    options = config(model, f"a2d.data={data}", "a2d.max_length=64")
    files = adapted_files(options, str(model))
    end = files.tokenizer.eos_token_id
    files.network.eot_token_id, files.network.eos_token_id = None, [end, 5]
    assert read_records(options, files)[0][0].ids[-1] == end


def test_a_model_without_end_token_is_refused(tmp_path):
    """Its answers would have no end."""
    folder = write_causal(tmp_path / "model", eos_token_id=None)
    for name in ("tokenizer_config.json", "generation_config.json"):  # which may have it too
        path = folder / name
        path.write_text(json.dumps({"chat_template": "x"}))
    with pytest.raises(UserError, match="eos_token_id"):
        adapted_files(config(folder), str(folder))


def test_own_records_leave_the_held_out_ones_out(model):
    words = ["cold_start.records=30"]
    everything = records(model, *words)
    assert len(everything) == 30
    assert len(records(model, *words, "eval.nelbo_records=4")) <= 26
    # one adapted model serves all seeds
    assert records(model, *words, "seed=5") == everything
    assert records(model, *words, "a2d.seed=5") != everything


@pytest.mark.parametrize(
    ("content", "words", "key"),
    [
        ("", "", "data.txt"),
        ("short", "", "a2d.eval_records=32"),
        ("text", "a2d.max_length=257", "a2d.max_length=257"),
        ("text", "a2d.data=nowhere.txt", "nowhere.txt"),
        ("text", "a2d.data=nowhere.jsonl", "nowhere.jsonl"),
    ],
)
def test_refusals(content, words, key, model, tmp_path):
    data = tmp_path / "data.txt"
    data.write_text(content)
    options = config(model, *(words.split() or [f"a2d.data={data}"]))
    with pytest.raises(UserError) as refusal:
        prepare(options, *read_records(options, adapted_files(options, str(model))))
    assert key in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_an_empty_row_is_refused_or_left_out(model, tmp_path):
    data = written(tmp_path / "t.jsonl", [{"text": "a"}, {"text": ""}, {"text": "b"}])
    with pytest.raises(UserError, match=r"t.jsonl:2"):
        records(model, f"a2d.data={data}")
    assert len(records(model, f"a2d.data={data}", "cold_start.data.bad_records=skip")) == 2


@pytest.mark.parametrize(("data", "words"), [("self", ["cold_start.records"]), ("c.jsonl", [])])
def test_only_data_of_its_own_depend_on_the_cold_start(model, data, words):
    """Otherwise a run may go on with other records of the cold start."""
    first = config(model, f"a2d.data={data}")
    later = config(model, f"a2d.data={data}", "cold_start.records=21")
    assert changed_options(to_yaml(first), later, ["a2d"]) == words
    assert changed_options(to_yaml(first), later, ["a2d", "sft"]) == ["cold_start.records"]
    for word in ("cold_start.data.bad_records=skip", "a2d.seed=1", "system=Think."):
        other = config(model, f"a2d.data={data}", word)
        assert changed_options(to_yaml(first), other, ["a2d"]) == [word.split("=")[0]]


def test_a_cache_entry_is_written_by_one_run_and_stays(tmp_path, monkeypatch):
    monkeypatch.setenv("WEFT_RL_CACHE", str(tmp_path / "cache"))
    checkpoint = tmp_path / "step-6"
    write_model(checkpoint)
    context = StageContext(load_run_config(["preset=tiny"], command="it"), tmp_path, "a2d", "")
    cached = cache_path("a2d", context, {})
    writer = Thread(target=store, args=(checkpoint, context, cached))
    with cache_lock(cached.name):
        writer.start()
        writer.join(0.5)
        assert writer.is_alive()
        assert not cached.exists()
    writer.join()
    folder = cached.stat().st_ino
    store(checkpoint, context, cached)
    assert cached.stat().st_ino == folder


def test_annealing_grows_from_causal_to_full():
    class Network:
        attention_pattern = None

    network = Network()
    annealing = AttentionAnnealing(network, steps=10, seed=3)
    causal = torch.ones(50, 50, dtype=torch.bool).tril()
    assert torch.equal(annealing.pattern(0, 50), causal)
    for step in (2, 5, 9):
        pattern = annealing.pattern(step, 50)
        assert (pattern | ~causal).all()  # earlier positions are always visible
        share = pattern[~causal].float().mean().item()
        # 1225 draws: a standard deviation is 0.014 at most
        assert share == pytest.approx(step / 10, abs=0.06)
        assert torch.equal(AttentionAnnealing(network, 10, 3).pattern(step, 50), pattern)
        assert not torch.equal(AttentionAnnealing(network, 10, 4).pattern(step, 50), pattern)

    class State:
        global_step = 4

    annealing.on_step_begin(None, State, None)
    given = network.attention_pattern(6, torch.device("cpu"))
    assert torch.equal(given, annealing.pattern(4, 6))
    annealing.on_step_end(None, State, None)
    assert network.attention_pattern is None
    State.global_step = 10
    annealing.on_step_begin(None, State, None)
    assert network.attention_pattern is None
