"""Sampling from masked diffusion models.

`control` is numpy only, so torch is imported when a name that needs it is first asked for."""

from typing import TYPE_CHECKING, Any

from weft_rl.config.sampler import SamplerConfig

if TYPE_CHECKING:
    from weft_rl.sampler.denoise import SamplerOutput, generate

__all__ = ["SamplerConfig", "SamplerOutput", "generate"]


def __getattr__(name: str) -> Any:
    if name in ("SamplerOutput", "generate"):
        from weft_rl.sampler import denoise

        return getattr(denoise, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
