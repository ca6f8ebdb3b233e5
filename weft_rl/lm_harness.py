"""lm-evaluation-harness with weft-rl models; needs `pip install 'weft-rl[lm-eval]'`.

The harness finds only models that it lists, so this command registers `weft_rl` and passes all
arguments on:

    python -m weft_rl.lm_harness run --model weft_rl --tasks gsm8k \\
        --model_args pretrained=runs/a,gen_length=256,block_length=32

--model_args are the options of HarnessConfig. Without --device it runs on a GPU if there is one."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from re import fullmatch
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

from weft_rl.cli import execute
from weft_rl.config.fields import Block, about, option, require, shown
from weft_rl.config.load import parse_options
from weft_rl.config.sampler import SamplerConfig
from weft_rl.data.text import TextEncoder, decode_completion
from weft_rl.distributed import resolve_device
from weft_rl.errors import UserError
from weft_rl.evaluation.likelihood import log_likelihood
from weft_rl.models.loading import load_model, load_tokenizer
from weft_rl.runs.folder import checkpoint_of
from weft_rl.sampler import generate
from weft_rl.sampler.validation import special_ids
from weft_rl.seeding import seed_for

_BATCH = 8
_DEFAULT_DEVICE = "cuda:0"  # of the harness, which passes it as if the user had set it


@dataclass(frozen=True)
class HarnessConfig(Block):
    """Options in --model_args."""

    pretrained: str = field(metadata=about("folder of a model, run or checkpoint, or a hub id"))
    gen_length: int = option(256, "tokens generated", at_least=1)
    block_length: int = option(32, "tokens per block", at_least=1)
    steps: int | None = option(None, "denoising steps in all; null: gen_length / 2", at_least=1)
    draws: int = option(128, "Monte Carlo samples of a log-likelihood", at_least=1)
    batch_size: str = option(str(_BATCH), "records denoised together; auto: 8")
    device: str = option("auto", "auto, cpu, cuda or cuda:N")
    seed: int = option(0, "random seed", at_least=0, below=2**32)

    def __post_init__(self) -> None:
        super().__post_init__()
        known = fullmatch(r"[1-9][0-9]*|auto(:[0-9.]+)?", self.batch_size) is not None
        require(known, "batch_size", self.batch_size, "must be a whole number above 0, or auto")


def _device(requested: str) -> str:
    is_given = any(argument.startswith("--device") for argument in sys.argv)
    if requested == _DEFAULT_DEVICE and not is_given and not torch.cuda.is_available():
        sys.stderr.write("weft_rl.lm_harness: no CUDA device is available; device=cpu\n")
        return "cpu"
    return requested


@register_model("weft_rl")
class WeftLM(LM):
    """A checkpoint for the harness: generation and log-likelihoods."""

    def __init__(self, **model_args: Any) -> None:
        """model_args: HarnessConfig's options and the harness's max_batch_size. May raise
        UserError."""
        super().__init__()
        model_args.pop("max_batch_size", None)
        argv = [f"{key}={shown(value)}" for key, value in model_args.items()]
        config = parse_options(
            HarnessConfig, argv, command="weft_rl.lm_harness", description=str(__doc__)
        )
        device = resolve_device(_device(config.device))
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        steps = config.steps or max(config.gen_length // 2, 1)
        try:
            self.sampler = SamplerConfig(config.gen_length, config.block_length, steps)
        except UserError as error:
            raise UserError(str(error).replace("sampler.", "")) from error
        folder = checkpoint_of(config.pretrained, "pretrained")
        self.model, self.tokenizer = load_model(folder, device, dtype), load_tokenizer(folder)
        self.encoder, self.config = TextEncoder(self.tokenizer), config
        is_auto = config.batch_size.startswith("auto")
        self.batch_size = _BATCH if is_auto else int(config.batch_size)

    @property
    def tokenizer_name(self) -> str:
        """Key of the harness's cache of tokenized requests."""
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """Return the template for --apply_chat_template."""
        return str(self.tokenizer.chat_template) if chat_template else None

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Render a chat; without a generation prompt its last message stays open.

        A private character marks special tokens in messages; the requests below remove it."""
        return self.encoder.render(chat_history, add_generation_prompt=add_generation_prompt)[0]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Generate a completion for each context, cut before the request's first `until`."""
        texts: list[str] = []
        for start in range(0, len(requests), self.batch_size):
            batch = [request.args for request in requests[start : start + self.batch_size]]
            padded = self.tokenizer.pad(
                {"input_ids": [self.encoder.context(context) for context, _ in batch]},
                padding_side="left",
                return_tensors="pt",
            ).to(self.model.device)
            seeds = [seed_for(self.config.seed, "harness", context) for context, _ in batch]
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
        """Estimate log p(continuation | context), in nats, and whether greedy decoding gives it."""
        return [self._likelihood(*request.args) for request in requests]

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """Estimate log p(text), in nats, for each text, without windows."""
        return [self._likelihood("", request.args[0])[0] for request in requests]

    def _likelihood(self, context: str, continuation: str) -> tuple[float, bool]:
        prompt = torch.tensor(self.encoder.context(context) or [self.tokenizer.bos_token_id])
        answer = torch.tensor(self.encoder.texts([continuation])[0])
        seed = seed_for(self.config.seed, context, continuation)
        value = log_likelihood(
            self.model,
            prompt,
            answer,
            draws=self.config.draws,
            batch_size=self.batch_size,
            generator=torch.Generator().manual_seed(seed),
        )
        one_token_a_step = SamplerConfig(len(answer), len(answer), len(answer))
        greedy = generate(self.model, prompt[None].to(self.model.device), one_token_a_step)
        return value, greedy.completions[0].tolist() == answer.tolist()


def main(_: Sequence[str]) -> int:
    """Run the harness's own command line, which reads sys.argv itself."""
    from lm_eval.__main__ import cli_evaluate  # ty: ignore[import-not-found] - as above

    cli_evaluate()
    return 0


if __name__ == "__main__":
    sys.exit(execute("weft_rl.lm_harness", main, sys.argv[1:]))
