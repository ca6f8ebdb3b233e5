"""Generating completions: forwards, guidance and noise; `control` says what is committed.

B rows, A of them unfinished, P prompt and T completion tokens, L = P + T, K positions of a block,
V vocabulary."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from operator import index
from typing import Any

import torch
from torch import Tensor, nn

from weft_rl.config.schema import SamplerConfig
from weft_rl.diffusion.shapes import require_shape
from weft_rl.sampler.control import Ints, Progress, TraceEntry
from weft_rl.seeding import seed_for

Draw = tuple[int, int]  # a row's seed and its step


@dataclass(frozen=True)
class SamplerOutput:
    """Completions of a batch, in the order of its prompts."""

    tokens: Tensor  # (B, P + T) long, the prompts as they were given, then the completions
    completions: Tensor  # (B, T) long, without mask tokens
    lengths: Tensor  # (B,) long, tokens before the first end token; T where there is none
    forwards: int  # calls of the model, whatever the number of rows
    trace: list[list[TraceEntry]] | None  # each row's commitments in order, if asked for


def generate(
    model: nn.Module,
    prompt_ids: Tensor,
    config: SamplerConfig,
    attention_mask: Tensor | None = None,
    seeds: Sequence[int] | Tensor | None = None,
) -> SamplerOutput:
    """Complete each prompt by denoising T masks block by block, with a full forward per step.

    model: a masked language model of transformers, whose config names the mask and end tokens;
    prompt_ids (B, P) long; attention_mask (B, P), 0 on left padding; seeds (B,) ints, 0 .. B-1 if
    left out. A row depends on its prompt and its seed, not on padding or on the other rows.
    Candidates are drawn from softmax(logits / temperature) without the mask token; confidence is
    the float32 probability at temperature 1 over the whole vocabulary. With early_stop, tokens up
    to the end token are what they are without it. The model's modes and the global random state
    are left as they were. Raises ValueError for input that does not fit the model, and for logits
    that are not finite. Source: LLaDA's sampler, with ties to the lowest index."""
    mask_id, end_ids = _special_ids(model)
    visible = torch.ones_like(prompt_ids) if attention_mask is None else attention_mask.long()
    own_seeds = [*range(len(prompt_ids))] if seeds is None else [index(seed) for seed in seeds]
    _check(model, prompt_ids, visible, own_seeds, config, mask_id)
    network = _Network(model, prompt_ids, visible, mask_id, config.cfg_scale)
    progress = Progress(len(prompt_ids), config, mask_id, end_ids)
    forwards = 0
    with _evaluating(model), torch.no_grad():
        while len(rows := progress.unfinished()):
            logits = network.logits(rows, progress.tokens[rows], progress.positions(rows))
            forwards += 1
            draws = [(own_seeds[row], int(progress.step[row])) for row in rows]
            candidate, confidence = _candidates(logits, draws, config.temperature, mask_id)
            _require_valid(confidence, rows, progress.step)
            if config.remasking == "random":
                confidence = _uniform("position", draws, confidence.shape[1:], "cpu")
            progress.commit(rows, candidate.cpu().numpy(), confidence.cpu().numpy())
    lengths = torch.from_numpy(progress.finish()).to(prompt_ids.device)
    completions = torch.from_numpy(progress.tokens).to(prompt_ids.device)
    tokens = torch.cat([prompt_ids, completions], dim=1)
    return SamplerOutput(tokens, completions, lengths, forwards, progress.trace)


class _Network:
    """The model as a function of the completions, with the prompts and guidance put in."""

    def __init__(
        self, model: nn.Module, prompt_ids: Tensor, visible: Tensor, mask_id: int, cfg_scale: float
    ) -> None:
        self.model, self.prompt_ids, self.cfg_scale = model, prompt_ids, cfg_scale
        # over the padding too: nothing sees it
        self.unconditional = torch.full_like(prompt_ids, mask_id)
        # models take a faster path without a mask
        self.visible = None if visible.all() else visible
        # PEFT's own forward hides what the model accepts behind **kwargs
        unwrap: Any = getattr(model, "get_base_model", lambda: model)
        self.accepted = signature(type(unwrap()).forward).parameters

    def logits(self, rows: Ints, completions: Ints, positions: Ints) -> Tensor:
        """Guided logits of a block: (A, K, V) float32.

        rows (A,); completions (A, T) of these rows; positions (A, K) in the completion.
        Source of the guidance: LLaDA's sampler, u + (w + 1)(c - u)."""
        device = self.prompt_ids.device
        own = torch.from_numpy(rows).to(device)
        completion = torch.from_numpy(completions).to(device)
        where = torch.from_numpy(positions).to(device) + self.prompt_ids.shape[1]
        conditional = torch.cat([self.prompt_ids[own], completion], dim=1)
        if not self.cfg_scale:
            return self._forward(conditional, own, where)
        unconditional = torch.cat([self.unconditional[own], completion], dim=1)
        c, u = self._forward(
            torch.cat([conditional, unconditional]), own.repeat(2), where.repeat(2, 1)
        ).chunk(2)
        return u + (self.cfg_scale + 1) * (c - u)

    def _forward(self, canvas: Tensor, rows: Tensor, where: Tensor) -> Tensor:
        """Logits of canvas (A, L) at where (A, K): (A, K, V) float32."""
        options: dict[str, Tensor] = {}
        visible = None
        if self.visible is not None:
            completion = canvas.shape[1] - self.visible.shape[1]
            visible = nn.functional.pad(self.visible[rows], (0, completion), value=1)  # (A, L)
            if "position_ids" in self.accepted:
                # learned positions are absolute: padding must not shift them
                options["position_ids"] = (visible.cumsum(dim=1) - 1).clamp(min=0)
        if "logit_positions" in self.accepted:
            options["logit_positions"] = where
        output = self.model(input_ids=canvas, attention_mask=visible, **options)
        logits = getattr(output, "logits", None)
        if logits is None:
            raise ValueError(
                f"{type(self.model).__name__} returned no logits: sampling needs a masked "
                "language model, for instance one from AutoModelForMaskedLM"
            )
        if "logit_positions" not in self.accepted:
            logits = logits.take_along_dim(where[:, :, None], dim=1)
        return logits.float()


def _candidates(
    logits: Tensor, draws: Sequence[Draw], temperature: float, mask_id: int
) -> tuple[Tensor, Tensor]:
    """A token for each position and its probability at temperature 1: (A, K) long and float32.

    logits (A, K, V). The probability is NaN where the logits name none. The draw is by the
    Gumbel maximum, in the form that neither overflows nor divides by zero."""
    allowed = logits.clone()
    allowed[..., mask_id] = -torch.inf
    score = allowed
    if temperature:
        # float64 to here: float32 has no draws near 1, which are what makes rare tokens win
        waiting = -_uniform("token", draws, logits.shape[1:], logits.device).log()
        score = allowed - temperature * waiting.float().log()
    candidate = score.argmax(dim=-1, keepdim=True)
    confidence = logits.softmax(dim=-1).gather(-1, candidate)
    # at -inf there was nothing but the mask token to choose
    possible = allowed.gather(-1, candidate).isfinite()
    return candidate[..., 0], confidence.where(possible, torch.nan)[..., 0]


def _uniform(
    purpose: str, draws: Sequence[Draw], shape: Sequence[int], device: torch.device | str
) -> Tensor:
    """Uniform draws in [0, 1) of each row by itself: (A, *shape) float64."""
    values = torch.empty((len(draws), *shape), dtype=torch.float64, device=device)
    generator = torch.Generator(device)
    for row, (seed, step) in zip(values, draws, strict=True):
        row.uniform_(generator=generator.manual_seed(seed_for(seed, purpose, step)))
    return values


def _require_valid(confidence: Tensor, rows: Ints, step: Ints) -> None:
    invalid = confidence.isnan().any(dim=1).cpu().numpy()
    if invalid.any():
        row = rows[invalid][0]
        raise ValueError(
            f"row {row}, step {step[row]}: the model's logits are not finite; "
            "look for NaN in its weights or overflow in its dtype"
        )


@contextmanager
def _evaluating(model: nn.Module) -> Generator[None]:
    """Dropout and the like off inside; afterwards each module has its own mode again."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _special_ids(model: nn.Module) -> tuple[int, list[int]]:
    """The mask token and the tokens that end a completion, end of text first."""
    config: Any = model.config
    mask_id, eos = getattr(config, "mask_token_id", None), getattr(config, "eos_token_id", None)
    ends = [*(eos if isinstance(eos, list) else [eos]), getattr(config, "eot_token_id", None)]
    end_ids = [token for token in ends if token is not None]
    if mask_id is None or not end_ids:
        raise ValueError(
            f"model.config: mask_token_id={mask_id}, eos_token_id={eos}: "
            "sampling needs both; set them from the tokenizer"
        )
    return mask_id, end_ids


def _check(
    model: nn.Module,
    prompt_ids: Tensor,
    visible: Tensor,
    seeds: Sequence[int],
    config: SamplerConfig,
    mask_id: int,
) -> None:
    """Raise ValueError for what would fail or go wrong silently later."""
    if prompt_ids.dim() != 2:
        raise ValueError(f"prompt_ids must be (B, P), got shape {tuple(prompt_ids.shape)}")
    require_shape("attention_mask", visible, prompt_ids.shape)
    if len(seeds) != len(prompt_ids):
        raise ValueError(f"seeds: {len(seeds)} for {len(prompt_ids)} prompts; give one to each row")
    longest = getattr(model.config, "max_position_embeddings", None)
    if longest is not None and prompt_ids.shape[1] + config.gen_length > longest:
        raise ValueError(
            f"prompt_ids: {prompt_ids.shape[1]} tokens and gen_length={config.gen_length} are more "
            f"than max_position_embeddings={longest}; cut the prompt or generate less"
        )
    rules = {
        "is empty; a prompt needs a token": ~visible.bool().any(dim=1),
        "is padded on the right; pad on the left": (visible.diff(dim=1) < 0).any(dim=1),
        f"holds the mask token {mask_id}; pad with another": (prompt_ids == mask_id).any(dim=1),
    }
    for complaint, rows in rules.items():
        if rows.any():
            raise ValueError(f"prompt_ids: row {int(rows.nonzero()[0])} {complaint}")
