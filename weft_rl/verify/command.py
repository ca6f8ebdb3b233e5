"""`verify`: check a checkpoint, and print what a bug report needs."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import yaml

from weft_rl.config.fields import Block, about, option, require, shown
from weft_rl.config.load import parse_options
from weft_rl.config.schema import TOY_MODELS
from weft_rl.distributed import resolve_device
from weft_rl.errors import UserError
from weft_rl.pipeline.resume import environment
from weft_rl.verify.report import Report

if TYPE_CHECKING:
    import torch

_GROUPS = 8  # independent estimates of the NELBO, which give its standard error
_ABOUT = """Check a checkpoint: layout, tokenizer, chat template, generations, NELBO.
Exit status 2 if it cannot be loaded or has a defect; warnings leave it 0."""


@dataclass(frozen=True)
class VerifyConfig(Block):
    """Options of `verify`."""

    model: str = field(
        metadata=about("model name, folder, run, run checkpoint, adapter, GGUF file or Hub id")
    )
    device: str = option("auto", "auto, cpu, cuda or cuda:N")
    dtype: Literal["auto", "float32", "bfloat16"] = option(
        "auto", "dtype of the weights; auto: bfloat16 on a GPU, else float32"
    )
    gen_length: int = option(32, "tokens of each of the three generations", at_least=1)
    num_mc_samples: int = option(
        32, f"masks of the NELBO's text, a multiple of {_GROUPS}", at_least=_GROUPS
    )
    gsm8k: int = option(0, "number of GSM8K test problems to score; 0: none", at_least=0)
    data: str | None = option(
        None, "file or Hub data set with GSM8K's columns; null: openai/gsm8k from the Hub"
    )
    seed: int = option(0, "seed of the NELBO's masks", at_least=0, below=2**32)

    def __post_init__(self) -> None:
        super().__post_init__()
        fits = self.num_mc_samples % _GROUPS == 0
        rule = f"must be a multiple of {_GROUPS}"
        require(fits, "num_mc_samples", self.num_mc_samples, rule, search=True)
        require(self.data is None or self.gsm8k > 0, "data", self.data, "is for gsm8k=N; add it")


def main(argv: Sequence[str]) -> int:
    """Check the checkpoint in the arguments and return the exit status."""
    config = parse_options(
        VerifyConfig, argv, command="weft_rl.verify", description=_ABOUT, positional="model"
    )
    if config.model in TOY_MODELS:
        raise UserError(
            f"model={config.model}: has no weights before a run pretrains it; name a run or its "
            "checkpoint"
        )
    return verify(config)


def verify(config: VerifyConfig) -> int:
    """Print the check of a checkpoint and return the exit status. Raises UserError if it does not
    load."""
    device, report = resolve_device(config.device), Report()
    # keeps --help and option errors fast
    import torch
    from transformers.utils import logging

    from weft_rl.models.loading import load_model, network_config
    from weft_rl.models.tokenizer import load_tokenizer
    from weft_rl.verify import checkpoint, gsm8k, network, tokenizer

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    sys.stdout.write(f"weft-rl verify model={shown(config.model)}\n")
    _print_versions(report, device)
    # before the weights: a mistake in data= costs no loading
    records = gsm8k.read_records(config.gsm8k, config.data) if config.gsm8k else []
    half = config.dtype == "bfloat16" or (config.dtype == "auto" and device.type == "cuda")
    dtype = torch.bfloat16 if half else torch.float32
    report.section("checkpoint")
    found = checkpoint.find(config.model)
    checkpoint.describe(report, found, dtype, device)
    tokens = load_tokenizer(found.folder, adapt=True)
    with report.checking("tokenizer"):
        tokenizer.describe(report, tokens, network_config(found.config, found.base))
        if found.lacks_mask:
            report.fact("in the files", "no mask token; it is added on loading")
        if found.lacks_mask and not found.autoregressive:
            report.problem("no mask token: the model is not adapted, or its tokenizer is another's")
        elif found.guesses_mask and not found.autoregressive:
            mask_id = found.config["mask_token_id"]
            report.fact("in the files", "no mask token")
            report.warn(
                f"the files name no mask token; id {mask_id}, the next free one, is a guess"
            )
    with report.checking("chat template"):
        tokenizer.describe_template(report, tokens)
    if found.autoregressive:
        return report.finish()
    model = load_model(found.folder, device, dtype)
    with report.checking("generations"):
        network.generate_some(report, model, tokens, config.gen_length)
    with report.checking("NELBO"):
        masks = config.num_mc_samples // _GROUPS
        network.measure_nelbo(report, model, tokens, masks, _GROUPS, config.seed)
    if records:
        with report.checking("GSM8K"):
            gsm8k.score(report, model, tokens, found, records, config.data, config.seed)
    return report.finish()


def _print_versions(report: Report, device: "torch.device") -> None:
    import torch

    facts = yaml.safe_load(environment())
    report.section("versions")
    versions = [f"{name} {number}" for name, number in facts["versions"].items()]
    report.fact("packages", ", ".join(versions))
    report.fact("revision", facts["revision"])
    name = f", {torch.cuda.get_device_name(device)}" if device.type == "cuda" else ""
    report.fact("device", f"{device}{name}, CPU threads: {torch.get_num_threads()}")
