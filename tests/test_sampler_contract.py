"""The contract of generate: outputs, side effects, other models, errors."""

import random
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from sampler_models import END, MASK, TURN, Fixed, TinyNet, bert, llada, prompts

from weft_rl.sampler import SamplerConfig, generate


def test_output_shapes_and_the_untouched_prompt():
    ids, visible = prompts(random.Random(5), 3, 12)
    out = generate(TinyNet(12, 0), ids, SamplerConfig(6, 3, 4), visible)
    assert out.tokens.equal(torch.cat([ids, out.completions], dim=1))
    assert (out.completions.shape, out.lengths.shape) == ((3, 6), (3,))
    assert out.tokens.dtype == out.lengths.dtype == torch.long
    assert out.trace is None
    none = generate(TinyNet(9, 0), ids[:0, :4], SamplerConfig(6, 3, 2))
    assert (none.tokens.shape, none.forwards) == ((0, 10), 0)


@pytest.mark.parametrize("cache", ["none", "dual"])
def test_adapters_keep_the_cache_and_the_cheap_head(cache):
    ids, config = torch.tensor([[5, 5, 5], [5, 5, 6]]), SamplerConfig(8, 4, 4, cache=cache)
    expected = generate(llada(), ids, config)
    model, shapes = get_peft_model(llada(), LoraConfig(target_modules=["q_proj"])), []
    model.register_forward_hook(lambda _, __, out: shapes.append(out.logits.shape[0]))
    assert generate(model, ids, config).tokens.equal(expected.tokens)
    assert cache == "dual" or shapes == [2 * masks for masks in (4, 2, 4, 2)]


@pytest.mark.parametrize("rule", ["free", "late", "never"])
def test_an_end_token_beyond_the_vocabulary_is_none(rule):
    """A class's default id, which a model with fewer words keeps."""
    model = TinyNet(6, 0)
    options = SamplerConfig(6, 2, 6, temperature=1.0, end_tokens=rule)
    model.config.vocab_size, outputs = 6, []
    for model.config.eot_token_id in (None, 126348):
        outputs.append(generate(model, torch.full((8, 1), 5), options))
    assert outputs[0].tokens.equal(outputs[1].tokens)
    assert outputs[0].lengths.equal(outputs[1].lengths)


@pytest.mark.parametrize("training", [True, False])
def test_modes_random_state_and_graph_are_left_alone(training):
    model = llada().train(training)
    frozen = model.model.transformer.blocks[0].eval()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    seen = []
    model.register_forward_hook(
        lambda module, _, out: seen.append((module.training, out.logits.requires_grad))
    )
    out = generate(model, torch.full((2, 3), 5), SamplerConfig(4, 4, 2, temperature=1.0))
    assert torch.get_rng_state().equal(before)
    assert set(seen) == {(False, False)}
    assert model.training is training
    assert not frozen.training
    # a later training step may save the tokens for its backward pass
    assert not out.tokens.is_inference()


class FailsLater(TinyNet):
    """Ends the row whose prompt starts with a 4; NaN for the one with a 7, from the third call."""

    calls = 0

    def forward(self, input_ids, attention_mask=None):
        self.calls += 1
        out = super().forward(input_ids, attention_mask)
        out.logits[..., [END, TURN]] = -100.0
        out.logits[input_ids[:, 0] == 4, :, END] = 100.0
        if self.calls > 2:
            out.logits[input_ids[:, 0] == 7, :, 5] = torch.nan
        return out


def test_broken_logits_name_row_and_step():
    # row 0 has left the batch by then: the number is the caller's
    ids, model = torch.tensor([[4, 5], [7, 5], [5, 5]]), FailsLater(9, 0).train()
    with pytest.raises(ValueError, match="row 1, step 2"):
        generate(model, ids, SamplerConfig(6, 1, 6))
    assert model.training


@pytest.mark.parametrize(
    "logits", [[0.0, torch.inf, 0, 0], [-torch.inf] * 3 + [0.0], [-torch.inf] * 4]
)
def test_logits_that_allow_no_token_are_refused(logits):
    with pytest.raises(ValueError, match="not finite"):
        generate(Fixed(logits), torch.zeros(1, 1, dtype=torch.long), SamplerConfig(2, 2, 2))


OK, PADDED = torch.full((2, 4), 5), torch.tensor([[MASK, 5], [5, 5]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt_ids": torch.full((4,), 5)}, "prompt_ids"),
        ({"prompt_ids": torch.full((1, 35), 5)}, "sampler.gen_length=6"),
        ({"prompt_ids": torch.zeros(2, 0).long()}, "row 0"),
        ({"attention_mask": torch.tensor([[1] * 4, [0] * 4])}, "row 1"),
        ({"attention_mask": torch.tensor([[0, 1, 1, 1], [1, 1, 1, 0]])}, "row 1"),
        ({"attention_mask": torch.ones(2, 10)}, "attention_mask"),
        ({"prompt_ids": torch.tensor([[5, 5], [MASK, 5]])}, "row 1 .* mask token 3"),
        ({"prompt_ids": PADDED, "attention_mask": PADDED != MASK}, "row 0 .* mask token 3"),
        ({"prompt_ids": torch.tensor([[5, 5], [5, 13]])}, "row 1 .* 0 to 12"),
        ({"prompt_ids": torch.tensor([[-1, 5]])}, "row 0 .* 0 to 12"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"seeds": [1, 2, 3]}, "seeds: 3 for 2"),
    ],
)
def test_wrong_input_is_refused_before_the_first_forward(arguments, message):
    model, calls = llada(), []
    model.register_forward_pre_hook(lambda *_: calls.append(1))
    with pytest.raises(ValueError, match=message):
        generate(model, **{"prompt_ids": OK, "config": SamplerConfig(6, 3, 2), **arguments})
    assert not calls


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ({"eos_token_id": END}, "mask_token_id=None"),
        ({"mask_token_id": MASK, "eos_token_id": None}, "eos_token_id=None"),
        ({"mask_token_id": MASK, "eos_token_id": END, "pad_token_id": MASK}, "mask_token_id=3"),
    ],
)
def test_a_model_without_special_tokens_is_refused(ids, message):
    model = TinyNet(9, 0)
    model.config = SimpleNamespace(**ids)
    with pytest.raises(ValueError, match=message):
        generate(model, OK, SamplerConfig(6, 3, 2))


def test_a_model_without_cache_or_logits_is_refused():
    with pytest.raises(ValueError, match="cache=dual: BertForMaskedLM"):
        generate(bert(), OK, SamplerConfig(6, 3, 2, cache="dual"))
    with pytest.raises(ValueError, match="BertModel returned no logits"):
        generate(bert().bert, OK, SamplerConfig(6, 3, 2))


def test_no_eos_takes_the_end_of_text_out_of_the_vocabulary():
    # first place: end of text .6, token 4 .3, 5 .1; second: end of turn .35, 0 and 4 .325
    p = torch.full((3, 6), 1e-9)
    p[1, [END, 4, 5]], p[2, [TURN, 0, 4]] = torch.tensor([[0.6, 0.3, 0.1], [0.35, 0.325, 0.325]])
    model = Fixed(p.log())
    model.config.eot_token_id = TURN
    options = SamplerConfig(2, 2, 2, end_tokens="no_eos", trace=True, early_stop=False)
    out = generate(model, torch.tensor([[5]]), options)
    # .3 / .4 is surer than .35, and an end of turn is drawn
    assert out.completions.tolist() == [[4, TURN]]
    assert [entry["position"] for entry in out.trace[0]] == [0, 1]
    assert [entry["confidence"] for entry in out.trace[0]] == pytest.approx([0.75, 0.35])


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_no_eos_equals_a_model_without_the_token(temperature):
    class Without(TinyNet):
        def forward(self, input_ids, attention_mask=None):
            out = super().forward(input_ids, attention_mask)
            out.logits[..., END] = -torch.inf
            return out

    options = {"temperature": temperature, "trace": True, "early_stop": False}
    prompt = torch.full((16, 2), 5)
    plain = SamplerConfig(6, 3, 4, end_tokens="no_eos", **options)
    found = generate(TinyNet(7, 0), prompt, plain)
    wanted = generate(Without(7, 0), prompt, SamplerConfig(6, 3, 4, **options))
    assert found.completions.equal(wanted.completions)
    assert found.trace == wanted.trace
    assert not found.completions.eq(END).any()
    free = generate(TinyNet(7, 0), prompt, SamplerConfig(6, 3, 4, **options))
    assert free.completions.eq(END).any()
