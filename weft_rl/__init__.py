"""Reasoning post-training of masked diffusion language models.

    from weft_rl import ColdStartConfig, ColdStartTrainer, generate

    trainer = ColdStartTrainer(
        "GSAI-ML/LLaDA-8B-Instruct",
        ColdStartConfig("out", recipe="weft"),
        train_dataset=rows,  # rows such as {"messages": [...]}
        eval_dataset=more_rows,
    )
    trainer.train()
    print(trainer.evaluate())  # eval_nelbo: bound in nats per answer token
    chat = [{"role": "user", "content": "2 + 3"}]
    print(generate(trainer.model, trainer.processing_class, prompts=[chat]).texts)

An autoregressive model must be adapted to diffusion first, with recipe sft:

    model, tokenizer = load_autoregressive("Qwen/Qwen3-0.6B")
    ColdStartTrainer(model, ColdStartConfig("adapted", recipe="sft"), rows).train()

DiffuGRPOTrainer does reinforcement learning; help() of each name has its arguments. Names are
imported on first use: `import weft_rl` alone loads no torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from weft_rl.evaluation.likelihood import nelbo
    from weft_rl.models.loading import load_autoregressive, load_model
    from weft_rl.models.tokenizer import load_tokenizer
    from weft_rl.sampler import SamplerConfig, generate
    from weft_rl.trainers.cold_start import ColdStartTrainer
    from weft_rl.trainers.cold_start_config import ColdStartConfig
    from weft_rl.trainers.diffu_grpo import DiffuGRPOTrainer
    from weft_rl.trainers.grpo_config import DiffuGRPOConfig
    from weft_rl.trainers.weft_loss import weft_loss

__version__ = "0.1.0"
__all__ = [
    "ColdStartConfig",
    "ColdStartTrainer",
    "DiffuGRPOConfig",
    "DiffuGRPOTrainer",
    "SamplerConfig",
    "generate",
    "load_autoregressive",
    "load_model",
    "load_tokenizer",
    "nelbo",
    "weft_loss",
]
_MODULES = {
    "ColdStartConfig": "trainers.cold_start_config",
    "ColdStartTrainer": "trainers.cold_start",
    "DiffuGRPOConfig": "trainers.grpo_config",
    "DiffuGRPOTrainer": "trainers.diffu_grpo",
    "SamplerConfig": "sampler",
    "generate": "sampler",
    "load_autoregressive": "models.loading",
    "load_model": "models.loading",
    "load_tokenizer": "models.tokenizer",
    "nelbo": "evaluation.likelihood",
    "weft_loss": "trainers.weft_loss",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
