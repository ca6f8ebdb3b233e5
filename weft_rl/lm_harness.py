"""lm-evaluation-harness with our models: `python -m weft_rl.lm_harness run --model weft_rl ...`.

The harness finds only models that it lists itself, so this command makes ours known and hands all
its arguments on. Needs `pip install 'weft-rl[lm-eval]'`.

    python -m weft_rl.lm_harness run --model weft_rl --tasks gsm8k \\
        --model_args pretrained=runs/a/checkpoints/rl/step-200,gen_length=256,block_length=32"""

import sys
from importlib.util import find_spec
from typing import Any

if __name__ == "__main__" and find_spec("lm_eval") is None:
    sys.stderr.write(
        "weft_rl.lm_harness: lm_eval is not installed; pip install 'weft-rl[lm-eval]'\n"
    )
    sys.exit(2)

import torch
from lm_eval.api.instance import Instance  # ty: ignore[import-not-found] - an optional extra
from lm_eval.api.model import LM  # ty: ignore[import-not-found] - as above
from lm_eval.api.registry import register_model  # ty: ignore[import-not-found] - as above

from weft_rl.config.schema import SamplerConfig
from weft_rl.data.text import TextEncoder, decode_completion
from weft_rl.likelihood import log_likelihood
from weft_rl.models.loading import load_model, load_tokenizer, resolve_device
from weft_rl.sampler import generate
from weft_rl.sampler.checks import special_ids
from weft_rl.seeding import seed_for


@register_model("weft_rl")
class WeftLM(LM):
    """A checkpoint as the harness sees it: text in, text and log-likelihoods out."""

    def __init__(
        self,
        pretrained: str,
        gen_length: int = 256,
        block_length: int = 32,
        steps: int | None = None,
        draws: int = 128,
        batch_size: int | str = 8,
        device: str = "auto",
        seed: int = 0,
        **_: Any,
    ) -> None:
        """pretrained: a folder or hub id; steps: gen_length / 2 if left out; draws: masks per
        log-likelihood. Raises UserError for a checkpoint or a length that cannot be used."""
        super().__init__()
        place = resolve_device(device or "auto")
        dtype = torch.bfloat16 if place.type == "cuda" else torch.float32
        self.model, self.tokenizer = (
            load_model(pretrained, place, dtype),
            load_tokenizer(pretrained),
        )
        self.encoder = TextEncoder(self.tokenizer)
        self.sampler = SamplerConfig(
            int(gen_length), int(block_length), int(steps or int(gen_length) // 2)
        )
        self.draws, self.seed = int(draws), int(seed)
        self.batch_size = 8 if batch_size == "auto" else int(batch_size)

    @property
    def tokenizer_name(self) -> str:
        """Under which the harness keeps what it has tokenised."""
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The template that --apply_chat_template uses."""
        return str(self.tokenizer.chat_template) if chat_template else None

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """A conversation as text, its last message left open without a generation prompt.

        A special token that a message spells has a private character within it, which the requests
        below take out again."""
        return self.encoder.render(chat_history, add_generation_prompt=add_generation_prompt)[0]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """A completion for each context, cut before the first of the request's `until`."""
        texts: list[str] = []
        for start in range(0, len(requests), self.batch_size):
            batch = [request.args for request in requests[start : start + self.batch_size]]
            padded = self.tokenizer.pad(
                {"input_ids": [self.encoder.context(context) for context, _ in batch]},
                padding_side="left",
                return_tensors="pt",
            ).to(self.model.device)
            seeds = [seed_for(self.seed, "harness", context) for context, _ in batch]
            out = generate(
                self.model, padded["input_ids"], self.sampler, padded["attention_mask"], seeds
            )
            for (_, options), row in zip(batch, out.completions.tolist(), strict=True):
                text = decode_completion(self.tokenizer, row, special_ids(self.model)[1])
                stops = options.get("until") or []
                for stop in [stops] if isinstance(stops, str) else stops:
                    text = text.partition(stop)[0] if stop else text
                texts.append(text)
        return texts

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """For each (context, continuation) the estimate, and whether greedy decoding, a token a
        step, writes the continuation."""
        return [self._likelihood(*request.args) for request in requests]

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """The estimate for each whole text; it is not cut into windows."""
        return [self._likelihood("", request.args[0])[0] for request in requests]

    def _likelihood(self, context: str, continuation: str) -> tuple[float, bool]:
        prompt = torch.tensor(self.encoder.context(context) or [self.tokenizer.bos_token_id])
        answer = torch.tensor(self.encoder.texts([continuation])[0])
        generator = torch.Generator().manual_seed(seed_for(self.seed, context, continuation))
        value = log_likelihood(
            self.model,
            prompt,
            answer,
            draws=self.draws,
            batch_size=self.batch_size,
            generator=generator,
        )
        length = len(answer)
        greedy = generate(
            self.model, prompt[None].to(self.model.device), SamplerConfig(length, length, length)
        )
        return value, greedy.completions[0].tolist() == answer.tolist()


def main() -> None:
    """The harness's own command line."""
    from lm_eval.__main__ import cli_evaluate  # ty: ignore[import-not-found] - as above

    cli_evaluate()


if __name__ == "__main__":
    main()
