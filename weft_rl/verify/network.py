"""Generations and NELBO of a masked diffusion model on the built-in texts."""

import time
from collections.abc import Sequence
from math import log

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weft_rl.config.sampler import SamplerConfig
from weft_rl.data.prompts import chat_prompt
from weft_rl.data.text import TextEncoder
from weft_rl.diffusion.tensor_checks import IGNORED
from weft_rl.errors import UserError
from weft_rl.evaluation.likelihood import nelbo, unigram_entropy
from weft_rl.sampler import generate
from weft_rl.seeding import seed_for
from weft_rl.verify.probes import probes
from weft_rl.verify.report import Report

_BLOCK = 32  # d1's block length


def generate_some(
    report: Report, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, gen_length: int
) -> None:
    """Report three greedy completions, two tokens per step. Raises UserError for NaN logits."""
    width = getattr(model.config, "block_size", None) or _BLOCK
    block = width if gen_length % width == 0 else gen_length
    sampler = SamplerConfig(gen_length, block, max(1, gen_length // 2))
    report.fact(
        "sampler", f"gen_length {gen_length}, block_length {block}, steps {sampler.steps}, greedy"
    )
    tokens = 0
    for prompt in probes(tokenizer).prompts:
        chats = [chat_prompt(prompt)] if tokenizer.chat_template is not None else [prompt]
        start = time.perf_counter()
        try:
            output = generate(model, tokenizer, sampler, prompts=chats)
        except UserError as error:
            raise UserError(str(error).replace("sampler.", "")) from error  # as in argv
        seconds, length = time.perf_counter() - start, int(output.lengths[0])
        report.text("prompt", prompt)
        report.text("completion", (output.texts or [""])[0])
        report.fact(
            "speed",
            f"{length} tokens before the end, {output.forwards} forwards "
            f"({length / output.forwards:.2f} tokens per forward), {seconds:.2f} s",
        )
        tokens += length
    if tokens == 0:
        report.warn("all completions are empty")


def measure_nelbo(
    report: Report,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    masks: int,
    groups: int,
    seed: int,
) -> None:
    """Report the NELBO of the built-in text, its unigram entropy and log(vocabulary).

    masks: per estimate; groups: independent estimates, whose spread is the standard error."""
    texts, config = probes(tokenizer), model.config
    rows = encode_pairs(tokenizer, texts.pairs, getattr(config, "max_position_embeddings", None))
    answers = [token for _, answer in rows for token in answer]
    values = estimates(model, rows, masks, groups, seed) / len(answers)
    mean, error = float(values.mean()), float(values.std()) / groups**0.5
    unigram, uniform = unigram_entropy([answers]), log(config.vocab_size)
    report.fact("text", f"{texts.name}, {len(answers)} tokens")
    report.fact("NELBO", f"{mean:.3f} nats per token, standard error {error:.3f} over masks")
    report.fact("unigram", f"{unigram:.3f}, entropy of the frequencies of the text's tokens")
    report.fact("uniform", f"{uniform:.3f}, log of the vocabulary size {config.vocab_size:,}")
    if not mean < uniform:  # also NaN
        report.problem(
            f"{mean:.3f} is not below log(vocabulary), {uniform:.3f}: random or damaged "
            "weights, or a layout that does not fit them"
        )
    elif mean >= unigram:
        report.warn(
            f"{mean:.3f} is not below the unigram entropy, {unigram:.3f}: weights or layout "
            "do not fit the text, or the model is not adapted to diffusion"
        )


def encode_pairs(
    tokenizer: PreTrainedTokenizerBase, pairs: Sequence[tuple[str, str]], longest: int | None
) -> list[tuple[list[int], list[int]]]:
    """Encode prompts as chats and answers as texts, cut to `longest` tokens together."""
    encoder = TextEncoder(tokenizer)
    prompts = [encoder.chats([chat_prompt(prompt)])[0] if prompt else [] for prompt, _ in pairs]
    answers = encoder.texts([answer for _, answer in pairs])
    limits = [None if longest is None else longest - len(prompt) for prompt in prompts]
    return [(p, a[:limit]) for p, a, limit in zip(prompts, answers, limits, strict=True)]


def estimates(
    model: PreTrainedModel,
    rows: Sequence[tuple[list[int], list[int]]],
    masks: int,
    groups: int,
    seed: int,
) -> Tensor:
    """Return independent estimates of the rows' total NELBO in nats: (groups,) on the CPU."""
    width = max(len(prompt) + len(answer) for prompt, answer in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    labels, visible = torch.full_like(ids, IGNORED), torch.zeros_like(ids)
    for row, (prompt, answer) in enumerate(rows):
        begin, end = len(prompt), len(prompt) + len(answer)
        ids[row, :end] = torch.tensor(prompt + answer)
        labels[row, begin:end], visible[row, :end] = ids[row, begin:end], 1
    batch = [part.to(model.device) for part in (ids, labels, visible)]
    totals = []
    for group in range(groups):
        seeds = [seed_for(seed, "verify", group, row) for row in range(len(rows))]
        totals.append(nelbo(model, *batch, num_mc_samples=masks, seed=seeds).sum().cpu())
    return torch.stack(totals)
