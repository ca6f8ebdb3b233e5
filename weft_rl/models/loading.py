"""Models from `model=`, a checkpoint folder or a Hub id."""

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import cast

import torch
from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, get_peft_model
from safetensors import safe_open
from torch import Tensor
from transformers import (
    CONFIG_MAPPING,
    AutoModelForMaskedLM,
    BitsAndBytesConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.initialization import no_init_weights
from transformers.modeling_utils import set_zero3_state

from weft_rl.checkpoints.gguf import CACHED
from weft_rl.checkpoints.hub import hub_id, resolve_checkpoint
from weft_rl.checkpoints.lora_merge import (
    ADAPTER,
    Update,
    adapter_base,
    chain,
    merge,
    read_updates,
)
from weft_rl.checkpoints.safetensors_index import check_weights, read_folder
from weft_rl.config.model import LoraConfig
from weft_rl.errors import UserError
from weft_rl.families import family_of, read_config
from weft_rl.families.a2d import ADDED_MASK, is_autoregressive
from weft_rl.families.base import Config
from weft_rl.families.shape import require_targets
from weft_rl.io.safe_files import check_model_folder
from weft_rl.models.memory import require_memory
from weft_rl.models.modeling_a2d import AdaptedNetwork
from weft_rl.models.tokenizer import foreign_files, load_tokenizer
from weft_rl.runs.checksums import verify_weights


def load_model(
    place: str | Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    nf4: bool = False,
) -> PreTrainedModel:
    """Load the model of a folder, run checkpoint, adapter folder or Hub id, in evaluation mode.

    Adapters are merged into their base in float32. nf4: 4-bit linear layers, the rest in dtype,
    adapters unmerged, as in training. Peak memory: the model in dtype and one float32 matrix.
    Raises UserError for an unsupported model.

    >>> import tempfile
    >>> from weft_rl import load_model, load_tokenizer
    >>> from weft_rl.config.schema import BaseConfig
    >>> from weft_rl.models.loading import fresh_model
    >>> from weft_rl.models.toy import tiny_config, tiny_tokenizer
    >>> folder = tempfile.mkdtemp()
    >>> fresh_model(tiny_config(BaseConfig()), seed=0).save_pretrained(folder)
    >>> _ = tiny_tokenizer().save_pretrained(folder)
    >>> load_model(folder).config.vocab_size == len(load_tokenizer(folder))
    True
    """
    folder, device = resolve_checkpoint(str(place)), torch.device(device)
    with foreign_files(f"model={place}: cannot load the model"):
        if nf4 and (folder / ADAPTER).exists():
            verify_weights(folder)
            base = load_model(adapter_base(folder), device, dtype, nf4=True)
            adapted = PeftModel.from_pretrained(base, str(folder), is_trainable=True)
            return cast(PreTrainedModel, _sort_config(adapted))
        if (folder / ADAPTER).exists() and any(folder.glob("model*.safetensors")):
            raise UserError(
                f"model={place}: has both an adapter and full weights; remove the older files"
            )
        folder, adapters = chain(folder)
        for part in (folder, *adapters):
            check_model_folder(part)
        updates = read_updates(adapters, check_weights(folder))
        for part in (folder, *adapters):
            verify_weights(part)
        quantization = four_bits(device) if nf4 else None
        require_memory(folder, dtype, device, nf4=nf4)
        content = read_config(folder)
        if quantization is None:
            return _load_streamed(folder, content, device, dtype, updates)
        if ADDED_MASK in content:
            raise UserError(
                f"model={place}: has no mask token, and 4-bit training leaves the row of a new one "
                "untrained; adapt it with stage a2d first"
            )
        options = {"device_map": device, "dtype": dtype, "quantization_config": quantization}
        options["config"] = network_config(content, folder)
        return AutoModelForMaskedLM.from_pretrained(folder, trust_remote_code=False, **options)


def load_autoregressive(
    place: str | Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    logit_shift: bool = False,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a causal Llama, Qwen2 or Qwen3 as an A2D network, not adapted yet, and its tokenizer.

    A missing mask token is added; its row is the mean of the others. logit_shift: the output at a
    position predicts the next one, as before. A diffusion model is loaded as by load_model, which
    must then agree about the shift. Raises UserError for another architecture or a bad folder."""
    folder, device = resolve_checkpoint(str(place)), torch.device(device)
    with foreign_files(f"model={place}: cannot load the model"):
        check_model_folder(folder)
        content = read_config(folder, adapt=True)
        check_weights(folder, adapt=True)
        verify_weights(folder)
        require_memory(folder, dtype, device, nf4=False)
        if is_autoregressive(read_config(folder)):
            content["logit_shift"] = logit_shift
        elif content.get("logit_shift", False) != logit_shift:
            raise UserError(
                f"model={place}: was trained with logit_shift={not logit_shift}; keep that"
            )
        model = _load_streamed(folder, content, device, dtype, {})
        if not Path(place).is_dir() and not folder.name.startswith(CACHED):
            model.name_or_path = hub_id(str(place))  # for model cards
    return model, load_tokenizer(place, adapt=True)


def network_config(content: Config, folder: Path) -> PreTrainedConfig:
    """Return the configuration of a config.json's network. Raises UserError as Family.fields."""
    family, is_transformers = family_of(content, folder)
    model_type = family.model_types[0] if is_transformers else content["model_type"]
    config = CONFIG_MAPPING[model_type].from_dict(dict(content))
    config.name_or_path = str(folder)  # PEFT names it as an adapter's base
    return config


@torch.no_grad()
def _load_streamed(
    folder: Path,
    content: Config,
    device: torch.device,
    dtype: torch.dtype,
    updates: Mapping[str, list[Update]],
) -> PreTrainedModel:
    """Load tensor by tensor: from_pretrained would hold both the mapped files and the model."""
    config = network_config(content, folder)
    # the state prevents sharding by transformers after a stage with ZeRO-3
    with no_init_weights(), set_zero3_state(), device:
        model = AutoModelForMaskedLM.from_config(config, dtype=dtype).eval()
        model.tie_weights()
    weights = model.state_dict()
    family, _ = family_of(content, folder)
    sizes = family.sizes(content)
    # some files repeat a tied head
    repeated = family.vocabulary(sizes)[1].upstream if sizes.tied else None
    for path in sorted({item.file for item in read_folder(folder).values()}):
        with safe_open(path, "pt") as file:
            for name in set(file.keys()) - {repeated}:
                tensor = file.get_tensor(name)
                if name in updates:
                    tensor = merge(tensor.to(device), updates[name])
                weights[name][: len(tensor)].copy_(tensor)  # all rows but that of a new mask token
    if ADDED_MASK in content:
        for module in (model.get_input_embeddings(), model.get_output_embeddings()):
            rows = cast(Tensor, module.weight)
            rows[config.mask_token_id] = rows[: config.mask_token_id].float().mean(0)
        cast(AdaptedNetwork, model).has_new_mask_token = True
    return model


def four_bits(device: torch.device) -> BitsAndBytesConfig:
    """Return the 4-bit settings of QLoRA and d1. Raises UserError if they are unavailable."""
    fix = "use memory.quantization=none"
    if device.type != "cuda":
        raise UserError(f"memory.quantization=nf4: needs a CUDA device, not {device}; {fix}")
    if find_spec("bitsandbytes") is None:
        raise UserError(
            f"memory.quantization=nf4: needs bitsandbytes; pip install 'weft-rl[nf4]', or {fix}"
        )
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def require_trained_mask(model: torch.nn.Module, name: str) -> None:
    """Raise UserError, with the option's name, for adapters on a model whose mask token is new."""
    if getattr(model, "has_new_mask_token", False):
        raise UserError(
            f"{name}: the model had no mask token, and adapters leave the row that was added for "
            "it untrained; adapt it with stage a2d first, or train all weights"
        )


def with_lora(
    model: PreTrainedModel, lora: LoraConfig, base: str, output: Path, seed: int = 0
) -> PreTrainedModel | PeftModel:
    """Return the model with a new adapter drawn from the seed, or unchanged for lora.r = 0.

    The adapter stores `base` relative to `output`. Raises UserError for unknown targets."""
    if lora.r == 0:
        return model
    require_trained_mask(model, f"{lora.prefix}r={lora.r}")
    if isinstance(model, PeftModel):
        raise UserError(
            f"memory.quantization=nf4: {base} is an adapter, which cannot be merged into 4-bit "
            f"weights; merge it with weft-rl convert {base} out=... to=upstream, then use that"
        )
    # excluded by identity: upstream names the head ff_out, like the feed-forward layer
    head = model.get_output_embeddings()
    linear = {
        name: name.rsplit(".", 1)[-1]
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    }
    require_targets(lora, {*linear.values()})
    # PEFT takes the base's name from the model, which would be wrong for an adapter on a merged one
    model.name_or_path = _base_path(base, output)
    targets = [name for name, last in linear.items() if last in lora.targets]
    config = PeftLoraConfig(
        r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets
    )
    # PEFT draws the initial matrices from the global random state, which is restored
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # noqa: TID251 - PEFT takes no generator
        return _sort_config(get_peft_model(model, config))


def _sort_config(model: PeftModel) -> PeftModel:
    """Make adapter_config.json reproducible: PEFT writes sets in hash order."""
    for config in model.peft_config.values():
        for name, value in vars(config).items():
            if isinstance(value, set):
                setattr(config, name, sorted(value))
    return model


def _base_path(base: str, output: Path) -> str:
    """Relative for a base inside the run, so that the run can be moved; else absolute or Hub id."""
    if not Path(base).is_dir():
        return base
    folder, output = Path(base).resolve(), output.resolve()
    run = [*output.parents][:3][-1]
    return os.path.relpath(folder, output) if folder.is_relative_to(run) else str(folder)


def fresh_model(config: PreTrainedConfig, seed: int) -> PreTrainedModel:
    """Return a float32 model with random weights from the seed: normal matrices, norms of one."""
    generator = torch.Generator().manual_seed(seed)
    # transformers initializes from the global random state, which is restored
    with torch.random.fork_rng(), set_zero3_state():
        model = AutoModelForMaskedLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=config.initializer_range, generator=generator)
    return model
