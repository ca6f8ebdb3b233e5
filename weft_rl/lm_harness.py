"""lm-evaluation-harness with weft-rl models; needs `pip install 'weft-rl[lm-eval]'`.

lm-eval 0.4.13 has no entry point for models of other packages. This command registers `weft_rl`,
also as LLaDA's `llada_dist`, and passes all arguments on to the harness's own entry point:

    python -m weft_rl.lm_harness run --model weft_rl --tasks gsm8k \\
        --model_args model_path=runs/a,gen_length=256,block_length=32

--model_args are the options of HarnessConfig, named as in LLaDA's eval_llada.py. `pretrained` is
`model_path`. Without --device it runs on a GPU if there is one."""

import sys
from collections.abc import Sequence, Sized
from dataclasses import dataclass, field
from importlib.util import find_spec
from re import fullmatch
from typing import Any, Literal

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
from weft_rl.config.fields import Block, about, argument, option, require
from weft_rl.config.load import parse_options
from weft_rl.config.sampler import SamplerConfig
from weft_rl.data.text import TextEncoder, decode_completion
from weft_rl.distributed import resolve_device
from weft_rl.errors import UserError
from weft_rl.evaluation.likelihood import log_likelihood
from weft_rl.models.loading import load_model
from weft_rl.models.tokenizer import load_tokenizer
from weft_rl.runs.folder import checkpoint_of
from weft_rl.sampler import generate
from weft_rl.sampler.prompts import pad_left
from weft_rl.sampler.validation import special_ids
from weft_rl.seeding import seed_for

_BATCH = 8
_DEFAULT_DEVICE = "cuda:0"  # of the harness, which passes it as if the user had set it


@dataclass(frozen=True)
class HarnessConfig(Block):
    """Options in --model_args."""

    model_path: str = field(metadata=about("folder of a model, run or checkpoint, or a Hub id"))
    mask_id: int | None = option(None, "mask token id; null: the model's", at_least=0)
    max_length: int | None = option(
        None, "maximum tokens of context and continuation; null: the model's positions", at_least=1
    )
    gen_length: int = option(256, "tokens generated", at_least=1)
    block_length: int = option(32, "tokens per block", at_least=1)
    steps: int | None = option(None, "denoising steps in all; null: gen_length / 2", at_least=1)
    remasking: Literal["low_confidence", "random"] = option(
        "low_confidence", "as sampler.remasking"
    )
    cfg: float = option(0.0, "classifier-free guidance scale, also of likelihoods", at_least=0)
    mc_num: int = option(128, "Monte Carlo samples of a log-likelihood", at_least=1)
    is_check_greedy: bool = option(
        True, "decode each continuation, for metrics such as LAMBADA's accuracy; false: faster"
    )
    batch_size: str = option(str(_BATCH), "records denoised together; auto: 8")
    device: str = option("auto", "auto, cpu, cuda or cuda:N")
    seed: int = option(0, "random seed", at_least=0, below=2**32)

    def __post_init__(self) -> None:
        super().__post_init__()
        known = fullmatch(r"[1-9][0-9]*|auto(:[0-9.]+)?", self.batch_size) is not None
        require(known, "batch_size", self.batch_size, "must be a whole number above 0, or auto")


def _device(requested: str) -> str:
    is_given = any(word.startswith("--device") for word in sys.argv)
    if requested == _DEFAULT_DEVICE and not is_given and not torch.cuda.is_available():
        sys.stderr.write("weft_rl.lm_harness: no CUDA device is available; device=cpu\n")
        return "cpu"
    return requested


@register_model("weft_rl", "llada_dist")
class WeftLM(LM):
    """A checkpoint for the harness: generation and log-likelihoods."""

    def __init__(self, **model_args: Any) -> None:
        """model_args: HarnessConfig's options and the harness's max_batch_size. May raise
        UserError."""
        super().__init__()
        model_args.pop("max_batch_size", None)
        names = {"pretrained": "model_path"}
        argv = [f"{names.get(key, key)}={argument(value)}" for key, value in model_args.items()]
        config = parse_options(
            HarnessConfig, argv, command="weft_rl.lm_harness", description=str(__doc__)
        )
        device = resolve_device(_device(config.device))
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        steps = config.steps or max(config.gen_length // 2, 1)
        try:
            self.sampler = SamplerConfig(
                config.gen_length,
                config.block_length,
                steps,
                remasking=config.remasking,
                cfg_scale=config.cfg,
            )
        except UserError as error:
            raise UserError(str(error).replace("sampler.", "")) from error
        folder = checkpoint_of(config.model_path, "model_path")
        self.model, self.tokenizer = load_model(folder, device, dtype), load_tokenizer(folder)
        if config.mask_id is not None:
            size = self.model.config.vocab_size
            rule = f"is not in the model's vocabulary of {size}; leave it out"
            require(config.mask_id < size, "mask_id", config.mask_id, rule)
            self.model.config.mask_token_id = config.mask_id
        self.max_length = config.max_length or self.model.config.max_position_embeddings
        self.encoder, self.config = TextEncoder(self.tokenizer), config
        is_auto = config.batch_size.startswith("auto")
        self.batch_size = _BATCH if is_auto else int(config.batch_size)

    @classmethod
    def create_from_arg_obj(
        cls, arg_dict: dict[str, Any], additional_config: dict[str, Any] | None = None
    ) -> "WeftLM":
        """--model_args take precedence over --batch_size, which the harness always passes."""
        given = {
            key: value for key, value in (additional_config or {}).items() if value is not None
        }
        return cls(**given | arg_dict)

    def _require_fits(self, context: Sized, length: int) -> None:
        total = len(context) + length
        rule = (
            f"a request takes {total} tokens, {length} of them new; raise it, or shorten the task"
        )
        require(total <= self.max_length, "max_length", self.max_length, rule)

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
            contexts = [self.encoder.context(context) for context, _ in batch]
            for context in contexts:
                self._require_fits(context, self.config.gen_length)
            ids, visible = pad_left(contexts, self.tokenizer, self.model.device)
            seeds = [seed_for(self.config.seed, "harness", context) for context, _ in batch]
            out = generate(self.model, ids, self.sampler, visible, seeds)
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
        """Estimate log p(continuation | context), in nats, and whether greedy decoding gives it.

        The second is False with is_check_greedy=False."""
        return [self._likelihood(*request.args) for request in requests]

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """Estimate log p(text), in nats, for each text, without windows."""
        return [self._likelihood("", request.args[0])[0] for request in requests]

    def _likelihood(self, context: str, continuation: str) -> tuple[float, bool]:
        if not self.encoder.is_rendered(context):
            # blanks between both begin the continuation, as in LLaDA's evaluation
            stripped = context.rstrip()
            context, continuation = stripped, context[len(stripped) :] + continuation
        begin, end = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        prompt = torch.tensor(
            self.encoder.context(context) or [end if begin is None else begin]  # Qwen has no begin
        )
        answer = torch.tensor(self.encoder.texts([continuation])[0])
        self._require_fits(prompt, len(answer))
        seed = seed_for(self.config.seed, context, continuation)
        value = log_likelihood(
            self.model,
            prompt,
            answer,
            draws=self.config.mc_num,
            batch_size=self.batch_size,
            generator=torch.Generator().manual_seed(seed),
            cfg_scale=self.config.cfg,
        )
        if not self.config.is_check_greedy:
            return value, False
        length = len(answer)
        one_token_a_step = SamplerConfig(length, length, length, cfg_scale=self.config.cfg)
        greedy = generate(self.model, prompt[None].to(self.model.device), one_token_a_step)
        return value, greedy.completions[0].tolist() == answer.tolist()


def main(_: Sequence[str]) -> int:
    """Run the harness's own command line, which reads sys.argv itself."""
    from lm_eval.__main__ import cli_evaluate  # ty: ignore[import-not-found] - as above

    cli_evaluate()
    return 0


if __name__ == "__main__":
    sys.exit(execute("weft_rl.lm_harness", main, sys.argv[1:]))
