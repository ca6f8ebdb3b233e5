"""The public functions and ColdStartTrainer as a user's script calls them."""

import doctest
import subprocess
import sys
from importlib import import_module

import pytest
import torch
from datasets import Dataset
from library import CHATS, SILENT, batch, cold, length_reward, prompts, rl, saved
from peft import LoraConfig
from small_cold_start import small_model
from torch.testing import assert_close
from transformers import EarlyStoppingCallback, TrainerCallback
from transformers.utils import logging

import weft_rl
from weft_rl import (
    ColdStartConfig,
    ColdStartTrainer,
    DiffuGRPOTrainer,
    SamplerConfig,
    generate,
    load_model,
    load_tokenizer,
    nelbo,
    weft_loss,
)
from weft_rl.diffusion.recipes import RECIPES
from weft_rl.models.toy import tiny_tokenizer
from weft_rl.trainers.sft_dataset import encode_dataset


def test_importing_the_package_imports_no_torch():
    code = "import sys, weft_rl; assert 'torch' not in sys.modules; print(dir(weft_rl))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(name in out.stdout for name in weft_rl.__all__)


@pytest.mark.parametrize(
    "module",
    [
        *("trainers.weft_loss", "evaluation.likelihood", "sampler.denoise", "models.loading"),
        *("trainers.cold_start", "trainers.diffu_grpo"),
    ],
)
def test_examples_in_docstrings(module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    logging.set_verbosity_warning()  # the default; a stage that ran before lowers it
    results = doctest.testmod(import_module(f"weft_rl.{module}"))
    assert results.attempted > 5
    assert results.failed == 0


def test_a_model_by_name_trains_on_chats_with_an_adapter(tmp_path):
    folder = saved(tmp_path / "model")
    made = ColdStartTrainer(
        folder,
        cold(tmp_path / "out"),
        train_dataset=Dataset.from_list(CHATS),
        peft_config=LoraConfig(r=2, target_modules=["q_proj"]),
    )
    made.train()
    assert made.processing_class.vocab_size == load_tokenizer(folder).vocab_size
    made.save_model()
    merged = load_model(tmp_path / "out")
    changed = [
        name
        for name, weight in load_model(folder).state_dict().items()
        if not torch.equal(weight, merged.state_dict()[name])
    ]
    assert changed
    assert all("q_proj" in name for name in changed)


def test_datasets_of_every_form_give_the_same_tokens():
    tokenizer, config = tiny_tokenizer(), small_model().config
    options = ColdStartConfig("out", **SILENT)

    def encoded(rows):
        return encode_dataset("train_dataset", rows, tokenizer, config, options)

    chat = encoded(CHATS)
    split = [{"prompt": row["messages"][:1], "completion": row["messages"][1:]} for row in CHATS]
    assert encoded(Dataset.from_list(split)) == chat
    labels = [{"input_ids": each.ids, "labels": each.labels} for each in chat]
    assert encoded(Dataset.from_list(labels)) == chat
    padded = [
        {
            "input_ids": [0, *each.ids, 0],
            "labels": [-100, *each.labels, -100],
            "attention_mask": [0] + [1] * len(each.ids) + [0],
        }
        for each in chat
    ]
    assert encoded(padded) == chat
    text = encoded([{"prompt": "2 + 1", "completion": "2"}])[0]
    assert tokenizer.decode(text.ids[: text.prompt_length]) == "2 + 1"
    assert text.ids[text.prompt_length :] == chat[0].ids[chat[0].prompt_length :]


def test_labels_may_skip_tokens_anywhere(tmp_path):
    """Two answers of one sequence: only their tokens are masked and counted."""
    rows = [{"input_ids": [5, 6, 7, 8, 9, 10], "labels": [-100, 6, 7, -100, -100, 10]}]
    made = ColdStartTrainer(small_model(), cold(tmp_path, recipe="sft"), train_dataset=rows)
    collated = made.data_collator([made.train_dataset[0]])
    assert collated["labels"].tolist() == [rows[0]["labels"]]
    seen = []
    made.record = lambda x0, answer, result, entropy: seen.append(result.masked | ~answer)
    for epoch in range(30):
        made.compute_loss(made.model, collated | {"example_ids": torch.tensor([[epoch, 0]])})
    ever = ~torch.stack(seen).all(0)
    assert ever.tolist() == [[False, True, True, False, False, True]]


BAD_ROWS = {
    "columns": ({"question": "1"}, "messages"),
    "labels": ({"input_ids": [5, 6], "labels": [-100, -100]}, "all -100"),
    "no labels": ({"input_ids": [5, 6]}, "labels"),
    "lengths": ({"input_ids": [5, 6], "labels": [5]}, "2 tokens, labels 1"),
    "shifted": ({"input_ids": [5, 6], "labels": [6, 7]}, "same id"),
    "mixed": ({"prompt": "1", "completion": [{"role": "assistant", "content": "2"}]}, "both"),
    "empty": ({"prompt": "1", "completion": ""}, "no tokens"),
    "no answer": ({"messages": [{"role": "user", "content": "1"}]}, "assistant"),
    "not a row": ("text", "dictionary"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_a_bad_row_is_named(tmp_path, name):
    row, told = BAD_ROWS[name]
    with pytest.raises(ValueError, match=rf"^train_dataset, row 1: [^\n]*{told}[^\n]*$"):
        ColdStartTrainer(
            small_model(),
            cold(tmp_path),
            train_dataset=[CHATS[0], row],
            processing_class=tiny_tokenizer(),
        )


def test_bad_datasets_options_and_tokenizers_are_refused_in_one_line(tmp_path):
    def made(data=CHATS, tokenizer=True, **options):
        given = tiny_tokenizer() if tokenizer is True else tokenizer
        return ColdStartTrainer(
            small_model(), cold(tmp_path, **options), train_dataset=data, processing_class=given
        )

    bare = tiny_tokenizer()
    bare.chat_template = None
    for problem, call in {
        "no chat template": lambda: made(tokenizer=bare),
        "processing_class": lambda: made(tokenizer=None),
        "max_length": lambda: made(max_length=3),
        "recipe='wft'": lambda: made(recipe="wft"),
        "reference": lambda: made(recipe="rho1"),
        "loss_norm": lambda: made(exact_elbo=True, loss_norm="masked"),
        "t_sampling='strat'": lambda: made(t_sampling="strat"),
        "truncation='left'": lambda: made(truncation="left"),
        "has no rows": lambda: made([]),
        "load_dataset": lambda: made("chats.jsonl"),
        "data_collator": lambda: ColdStartTrainer(
            small_model(), cold(tmp_path), CHATS, data_collator=CHATS
        ),
        "no such folder": lambda: ColdStartTrainer("./nowhere", cold(tmp_path)),
    }.items():
        with pytest.raises(ValueError, match=rf"^[^\n]*{problem}[^\n]*$"):
            call()


def test_the_loss_of_ones_own_loop_is_the_trainers(tmp_path):
    """Same formula for every recipe without a reference; the seeds differ, so the means agree."""
    model, rows = small_model(), batch()
    given = {name: rows[name] for name in ("labels", "attention_mask")}
    seeds = [3, 4, 5]
    for recipe in [name for name in RECIPES if name != "rho1"]:
        loss = weft_loss(model, rows["input_ids"], **given, recipe=recipe, seeds=seeds)
        alone = [
            weft_loss(
                model,
                rows["input_ids"][i : i + 1],
                rows["labels"][i : i + 1],
                rows["attention_mask"][i : i + 1],
                recipe=recipe,
                seeds=[seeds[i]],
            )
            for i in range(3)
        ]
        assert_close(loss, torch.stack(alone).mean(), rtol=1e-5, atol=1e-6)
        (gradient,) = torch.autograd.grad(loss, model.get_output_embeddings().weight)
        assert gradient.abs().sum() > 0
    generator = torch.Generator().manual_seed(0)
    one, other = (
        weft_loss(model, rows["input_ids"], **given, seeds=generator.manual_seed(0))
        for _ in range(2)
    )
    assert torch.equal(one, other)
    with pytest.raises(ValueError, match="no answer"):
        weft_loss(model, rows["input_ids"], torch.full_like(rows["labels"], -100))


class Foreign(torch.nn.Module):
    """A masked language model of another package: logits of all positions, and a config."""

    def __init__(self, model):
        super().__init__()
        self.inner, self.config = model, model.config

    def forward(self, input_ids, attention_mask=None):
        return self.inner(input_ids=input_ids, attention_mask=attention_mask)


def test_models_of_other_packages_have_the_same_loss_and_bound():
    model, rows = small_model(), batch()
    for function in (
        lambda each: weft_loss(each, rows["input_ids"], rows["labels"], seeds=[1, 2, 3]),
        lambda each: nelbo(each, rows["input_ids"], rows["labels"], num_mc_samples=4),
    ):
        assert_close(function(Foreign(model)), function(model), rtol=1e-5, atol=1e-6)


def test_nelbo_of_two_tokens_by_hand():
    """l = 1 masks either token with weight 2, l = 2 both: the mean over masks is exact."""
    model, ids = small_model(), torch.tensor([[5, 6, 7]])
    mask_id, labels = model.config.mask_token_id, torch.tensor([[-100, 6, 7]])

    def nll(*masked):
        xt = ids.clone()
        xt[0, list(masked)] = mask_id
        log_p = model(xt).logits[0].log_softmax(-1)
        return sum(float(-log_p[i, ids[0, i]]) for i in masked)

    exact = (nll(1) * 2 / 2 + nll(2) * 2 / 2 + nll(1, 2)) / 2
    values = torch.cat([nelbo(model, ids, labels, num_mc_samples=2, seed=n) for n in range(200)])
    assert abs(float(values.mean()) - exact) < 4 * float(values.std()) / 200**0.5
    assert values.std() > 0
    pair = torch.cat([ids, ids])
    once, again = (nelbo(model, pair, labels.expand(2, -1), seed=[7, 7]) for _ in range(2))
    assert torch.equal(once, again)
    assert_close(once[0], once[1])


def test_evaluate_is_fixed_and_independent_of_the_batch(tmp_path):
    def evaluated(size, **options):
        made = ColdStartTrainer(
            small_model(),
            cold(tmp_path, per_device_eval_batch_size=size, **options),
            train_dataset=CHATS,
            eval_dataset=CHATS,
            processing_class=tiny_tokenizer(),
        )
        return made, made.evaluate()

    made, first = evaluated(3)
    assert first == made.evaluate()
    _, other = evaluated(8)
    assert_close(first["eval_nelbo"], other["eval_nelbo"])
    rows = made.data_collator([made.eval_dataset[i] for i in range(8)])
    many = nelbo(
        made.model, rows["input_ids"], rows["labels"], rows["attention_mask"], num_mc_samples=400
    )
    per_token = (many / (rows["labels"] != -100).sum(-1)).mean()
    assert abs(first["eval_nelbo"] - float(per_token)) < 4 * first["eval_nelbo_se"]
    assert first["eval_loss"] == first["eval_nelbo"]


@pytest.mark.slow
def test_the_best_checkpoint_and_early_stopping_go_by_the_bound(tmp_path):
    made = ColdStartTrainer(
        small_model(),
        cold(
            tmp_path,
            max_steps=30,
            learning_rate=0.5,  # gets worse after a few steps
            eval_strategy="steps",
            eval_steps=2,
            save_steps=2,
            load_best_model_at_end=True,
        ),
        train_dataset=CHATS,
        eval_dataset=CHATS,
        processing_class=tiny_tokenizer(),
        callbacks=[EarlyStoppingCallback(2)],
    )
    made.train()
    bounds = [row["eval_nelbo"] for row in made.state.log_history if "eval_nelbo" in row]
    assert made.state.global_step < 30
    assert made.evaluate()["eval_nelbo"] == pytest.approx(min(bounds))


@pytest.mark.slow
@pytest.mark.parametrize("which", ["cold", "rl"])
def test_a_resumed_script_ends_as_the_uninterrupted_one(tmp_path, which):
    def made(folder):
        if which == "cold":
            args = cold(folder, max_steps=4, save_steps=1, entropy_refresh_epochs=2)
            return ColdStartTrainer(
                small_model(), args, train_dataset=CHATS, processing_class=tiny_tokenizer()
            )
        args = rl(folder, max_steps=4, save_steps=1, num_iterations=2, beta=0.1)
        return DiffuGRPOTrainer(
            small_model(), length_reward, args, prompts(), processing_class=tiny_tokenizer()
        )

    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            control.should_training_stop = state.global_step == 3

    full, cut = made(tmp_path / "full"), made(tmp_path / "cut")
    full.train()
    cut.add_callback(Stop())
    cut.train()
    resumed = made(tmp_path / "cut")
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 4
    one, other = ([*each.model.parameters()] for each in (full, resumed))
    assert all(map(torch.equal, one, other))


def test_a_finished_run_trains_no_other_step_and_names_what_changed(tmp_path):
    def made(**options):
        args = cold(tmp_path, max_steps=3, save_steps=3, **options)  # four steps an epoch
        return ColdStartTrainer(
            small_model(), args, train_dataset=CHATS, processing_class=tiny_tokenizer()
        )

    made().train()
    again = made(recipe="sft")
    with pytest.warns(UserWarning, match="recipe was 'weft'; training continues with 'sft'"):
        again.train(resume_from_checkpoint=True)
    assert again.state.global_step == 3


def test_an_autoregressive_model_is_refused(tmp_path):
    model = small_model()
    model.config.mask_token_id = None
    for make in (
        lambda: ColdStartTrainer(model, cold(tmp_path), train_dataset=CHATS),
        lambda: weft_loss(model, torch.tensor([[5, 6]]), torch.tensor([[-100, 6]])),
    ):
        with pytest.raises(ValueError, match="mask_token_id"):
            make()


def test_thoughts_and_left_out_rows(tmp_path):
    """A chat's <think> stays; rows over the limit are counted; TRL's end token is not doubled."""
    tokenizer, config = tiny_tokenizer(), small_model().config
    user = {"role": "user", "content": "1"}
    answer = {"role": "assistant", "content": "<think>1</think>2"}

    def encoded(rows, **options):
        given = ColdStartConfig("out", **SILENT | options)
        return encode_dataset("train_dataset", rows, tokenizer, config, given)

    kept, rewritten = (
        tokenizer.decode(
            encoded([{"messages": [user, answer]}], think=think, prompt_style="tiny")[0].ids
        )
        for think in ("keep", "rewrite")
    )
    assert "<reasoning>" not in kept
    assert "<reasoning>1</reasoning>" in rewritten
    with pytest.warns(UserWarning, match="1 of 2 rows are left out"):
        encoded([{"prompt": "1", "completion": text} for text in ("2", "2" * 50)], max_length=9)
    plain, ended = encoded(
        [{"prompt": "1", "completion": f"2{end}"} for end in ("", tokenizer.eos_token)]
    )
    assert plain.ids == ended.ids
    for column in ("position_ids", "completion_mask"):
        with pytest.raises(ValueError, match=column):
            encoded([{"input_ids": [5, 6], "labels": [-100, 6], column: [0, 1]}])


def test_a_causal_lora_config_and_an_adapter_beside_full_weights(tmp_path):
    folder = saved(tmp_path / "model")
    config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    made = ColdStartTrainer(folder, cold(tmp_path / "out"), train_dataset=CHATS, peft_config=config)
    made.train()
    made.save_model()
    small_model().save_pretrained(tmp_path / "out")
    with pytest.raises(ValueError, match="both an adapter and full weights"):
        load_model(tmp_path / "out")


def test_labels_of_the_next_token_are_refused():
    ids, labels = torch.tensor([[5, 6, 7]]), torch.tensor([[-100, 7, -100]])
    for function in (weft_loss, nelbo):
        with pytest.raises(ValueError, match="nothing is shifted"):
            function(small_model(), ids, labels)


def test_generate_takes_texts_and_chats():
    model, tokenizer, config = small_model(), tiny_tokenizer(), SamplerConfig(8, 8, 4)
    chat = [{"role": "user", "content": "2 + 3"}]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    by_ids = generate(model, torch.tensor([ids]), config)
    by_chat = generate(model, tokenizer, config, prompts=[chat])
    assert torch.equal(by_chat.tokens, by_ids.tokens)
    assert by_ids.texts is None
    assert len(by_chat.texts) == 1
    rendered = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    both = generate(model, prompts=[rendered, "2"], config=config, tokenizer=tokenizer)
    assert torch.equal(both.completions[0], by_ids.completions[0])
    assert both.tokens[1].tolist()[: len(ids) - 1] == [tokenizer.pad_token_id] * (len(ids) - 1)
    single = {"prompts": chat, "tokenizer": tokenizer}
    for bad in ({}, {"prompts": ["2"]}, {"prompts": "2", "tokenizer": tokenizer}, single):
        with pytest.raises(ValueError, match="prompts"):
            generate(model, config=config, **bad)
