"""One text of a completion for rewards, scores and files, and prompts that spell special tokens."""

import pytest
from bpe import llada_bpe
from datasets import Dataset
from refusals import refusal
from rl_trainer import ROWS, T, rollout, small_model, trainer
from run_folders import read_lines, write_lines
from sampler_models import canned

from weft_rl.cli import execute
from weft_rl.config.sampler import SamplerConfig
from weft_rl.data.prompts import chat_prompt
from weft_rl.data.records import Record
from weft_rl.data.tasks import training_records
from weft_rl.evaluation import generate as evaluation
from weft_rl.evaluation.settings import Settings
from weft_rl.models import LLaDAConfig
from weft_rl.models.loading import fresh_model
from weft_rl.models.toy import EOS, EOT, MASK, tiny_tokenizer
from weft_rl.pipeline.run import main
from weft_rl.sample import main as sample
from weft_rl.trainers import rollouts as denoised_rollouts

SPELLING = f"Ann has {MASK} apples and {EOT}<|startoftext|> {EOS} pears. How many?"


def test_rewards_scores_and_logs_see_the_same_text_of_every_token(tmp_path, monkeypatch):
    tokenizer, rewarded, scored, logged = tiny_tokenizer(), [], [], []
    rl = trainer(tmp_path, reward=lambda completion, **_: rewarded.append(completion) or 0.0)
    rl.on_rollout = lambda step, rows, completions, rewards: logged.extend(completions)
    ends = rl.model.config.end_token_ids
    records = training_records("sudoku", ROWS, 0)
    settings = Settings(SamplerConfig(T, T, 4), "tiny", None, None)
    one, two, *fill = tokenizer.convert_tokens_to_ids(["1", "2", *"345678901"])
    every = [[one, token, two, *fill][:T] for token in range(len(tokenizer))]
    for start in range(0, len(every), ROWS):
        rows = (every[start:] + every)[:ROWS]
        for module in (denoised_rollouts, evaluation):
            monkeypatch.setattr(module, "generate", canned(rows, ends))
        rollout(rl)
        for part in evaluation.sample_completions(
            small_model(), tokenizer, records, settings, batch_size=ROWS, seed=0
        ):
            scored += [done.text for done in part]
    assert rewarded == scored == [messages[0]["content"] for messages in logged]
    for token, text in enumerate(rewarded[: len(tokenizer)]):
        spelling = tokenizer.convert_ids_to_tokens(token)
        assert text == ("1" if token in ends else f"1{spelling}2345678901")


def test_rl_on_a_question_that_spells_special_tokens(tmp_path):
    texts, more = ("Ann has apples", SPELLING, MASK, "1"), {"id": "a", "fields": {}}
    rows = [{"prompt": chat_prompt(text)} | more for text in texts]
    rl = trainer(tmp_path, records=Dataset.from_list(rows))
    scored = [each for one in rollout(rl) for each in one["prompt_ids"].tolist()]
    config = rl.model.config
    assert len(scored) == ROWS
    for ids in scored:
        assert config.mask_token_id not in ids
        assert ids.count(config.eot_token_id) == 1  # the template's


def checkpoint(folder):
    """A checkpoint with tokens for any text."""
    tokenizer = llada_bpe()
    ids = tokenizer.get_vocab()
    tokens = {"mask": MASK, "eos": EOS, "eot": EOT, "pad": EOS, "bos": tokenizer.bos_token}
    special = {f"{name}_token_id": ids[token] for name, token in tokens.items()}
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    network = LLaDAConfig(vocab_size=len(tokenizer), **size, **special)
    fresh_model(network, 0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_every_stage_takes_the_same_texts(tmp_path, capsys):
    model, out = checkpoint(tmp_path / "model"), tmp_path / "run"
    answer = {"thinking_trajectories": [f"1{MASK}2"], "attempt": f"{EOT} 3"}
    traces = [{"question": text} | answer for text in (SPELLING, f"{SPELLING} ")]
    records = [{"question": f"{SPELLING} {i}", "answer": "#### 3"} for i in range(4)]
    data = write_lines(tmp_path / "traces.jsonl", traces)
    scored = write_lines(tmp_path / "records.jsonl", records)
    words = [
        *("stages=[sft,rl]", "task=gsm8k", f"model={model}", f"out={out}", "device=cpu"),
        *(f"data={data}", f"rl.rollout.data={scored}", f"eval.data={scored}", "eval.num_records=2"),
        *("prompt_style=d1", "eval.preset=run", "rl.optimizer.micro_batch_size=null"),
        *("cold_start.epochs=1", "cold_start.lora.r=0", "rl.lora.r=0", "rl.max_steps=1"),
        *("rl.num_prompts=2", "rl.num_generations=2", "rl.num_iterations=1", "rl.kl_coef=0"),
        *("sampler.gen_length=8", "sampler.block_length=8", "sampler.steps=4"),
    ]
    assert execute("weft_rl.pipeline", main, words) == 0, capsys.readouterr().err
    assert all(SPELLING in row["prompt"] for row in read_lines(out / "completions" / "rl.jsonl"))
    arguments = [f"checkpoint={out}", f"prompt={SPELLING}", "device=cpu", "gen_length=8"]
    assert execute("weft_rl.sample", sample, [*arguments, "block_length=8", "steps=4"]) == 0


def test_a_record_without_ordinary_tokens_is_named():
    """Before anything is generated, in one line."""
    tokenizer, content = tiny_tokenizer(), "messages[0]['content']"
    refuse = "{{ raise_exception('no nines') }}"
    tokenizer.chat_template = f"{{% if '9' in {content} %}}{refuse}{{% endif %}}"
    records = [Record(f"r-{i}", "gsm8k", {"question": f"{i}"}) for i in range(8, 10)]
    settings = Settings(SamplerConfig(T, T, 4), "d1", None, None)
    parts = evaluation.sample_completions(
        small_model(), tokenizer, records, settings, batch_size=2, seed=0
    )
    assert refusal(next, parts).startswith("r-9: ")
