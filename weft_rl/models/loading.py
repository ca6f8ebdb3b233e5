"""From `model=` or a checkpoint folder to a model and its tokenizer."""

import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import cast

import torch
import transformers
from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, get_peft_model
from safetensors import safe_open
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.initialization import no_init_weights
from transformers.modeling_utils import set_zero3_state

from weft_rl.checkpoints.hub import local_folder
from weft_rl.checkpoints.lora_merge import (
    ADAPTER,
    Update,
    adapter_base,
    as_float32,
    chain,
    updates_of_all,
)
from weft_rl.checkpoints.safetensors_index import Stored, read_folder
from weft_rl.checkpoints.weights_check import check_weights
from weft_rl.config.model import LoraConfig
from weft_rl.errors import UserError
from weft_rl.families.registry import family_of, read_config
from weft_rl.io.safe_files import check_model_folder
from weft_rl.models.memory import check_tokenizer, is_out_of_memory, require_memory
from weft_rl.runs.checksums import verify_weights


def resolve_device(name: str) -> torch.device:
    """The device for `device=`; a GPU becomes the current one. Raises UserError as find_device."""
    device = find_device(name)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def find_device(name: str) -> torch.device:
    """The device for `device=`: of several processes each has the GPU of its local rank.

    Takes nothing of a GPU's memory. Raises UserError for one that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"device={name}: no such device; use auto, cpu or cuda") from error
    if device.type != "cuda":
        return device
    if not torch.cuda.is_available():
        raise UserError(f"device={name}: no CUDA device is available; use device=cpu")
    if device.index is None:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    if device.index >= torch.cuda.device_count():
        raise UserError(
            f"device={device}: there are {torch.cuda.device_count()} CUDA devices; start one "
            "process for each"
        )
    return device


def load_tokenizer(place: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or hub id; an adapter's folder has its own copy.

    Its special tokens are checked against the model's, and its chat form is the family's own.
    Raises UserError when there is none, or one of another vocabulary."""
    folder = local_folder(place)
    check_model_folder(folder)
    known = (folder / "config.json").exists()
    family = family_of(read_config(folder), folder)[0] if known else None
    with _files_of_others(f"model={place}: no tokenizer could be loaded"):
        if family is not None and family.tokenizer is not None:
            # published with code of its own, which is never run; the files are this class's
            tokenizer = getattr(transformers, family.tokenizer).from_pretrained(folder)
        else:
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise UserError(f"model={place}: holds no tokenizer; copy its tokenizer files there")
    if family is not None:
        check_tokenizer(tokenizer, folder)
        if family.chat_template is not None:
            tokenizer.chat_template = family.chat_template
    return tokenizer


def load_model(
    place: str, device: torch.device, dtype: torch.dtype, *, nf4: bool = False
) -> PreTrainedModel:
    """The model of a folder or hub id; an adapter's updates are added to its base in float32.

    nf4: linear layers in 4 bits, the rest in dtype; an adapter stays beside its base then, which is
    what it was trained on. No more than the model in dtype and one matrix in float32 are in memory.
    Raises UserError naming the place when no model can be loaded from it, before anything is loaded
    when its files show that."""
    folder = local_folder(place)
    with _files_of_others(f"model={place}: cannot be loaded"):
        if nf4 and (folder / ADAPTER).exists():
            verify_weights(folder)
            base = load_model(adapter_base(folder), device, dtype, nf4=True)
            # PEFT freezes an adapter otherwise, and says nothing
            adapted = PeftModel.from_pretrained(base, str(folder), is_trainable=True)
            return cast(PreTrainedModel, _in_order(adapted))
        folder, adapters = chain(folder)
        for each in (folder, *adapters):
            check_model_folder(each)
        shapes = check_weights(folder)
        added = updates_of_all(adapters, shapes)
        for each in (folder, *adapters):
            verify_weights(each)
        if nf4:
            four = four_bits(device)
            require_memory(folder, dtype, device, nf4=True)
            return AutoModelForMaskedLM.from_pretrained(
                folder,
                device_map=device,
                dtype=dtype,
                quantization_config=four,
                trust_remote_code=False,
            )
        require_memory(folder, dtype, device)
        return _streamed(folder, device, dtype, added)


def _streamed(
    folder: Path, device: torch.device, dtype: torch.dtype, added: Mapping[str, list[Update]]
) -> PreTrainedModel:
    """A folder's model, made where it belongs and filled a tensor at a time, updates added.

    transformers maps the files into memory: converting to another dtype, it holds both whole."""
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    # the state keeps transformers from making the model in shards after a stage under ZeRO-3
    with no_init_weights(), set_zero3_state(), device:
        model = AutoModelForMaskedLM.from_config(config, dtype=dtype).eval()
    weights = model.state_dict()
    for path in {item.file for item in read_folder(folder).values()}:
        with safe_open(path, "pt") as file:
            for name in list(file.keys()):
                tensor = file.get_tensor(name)
                if name in added:
                    tensor = tensor.to(device, torch.float32)
                for update in added.get(name, []):
                    a, b = (_float32(part, device) for part in (update.a, update.b))
                    tensor.addmm_(b, a, alpha=update.scale)
                weights[name].copy_(tensor)
    return model


def _float32(item: Stored, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(as_float32(item)).to(device)


def four_bits(device: torch.device) -> BitsAndBytesConfig:
    """QLoRA's and d1's form of 4-bit weights. Raises UserError where it cannot be had."""
    cure = "use memory.quantization=none"
    if device.type != "cuda":
        raise UserError(
            f"memory.quantization=nf4: needs a CUDA device, and this runs on {device}; {cure}"
        )
    if find_spec("bitsandbytes") is None:
        raise UserError(
            f"memory.quantization=nf4: needs bitsandbytes; pip install 'weft-rl[nf4]', or {cure}"
        )
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


@contextmanager
def _files_of_others(problem: str) -> Generator[None]:
    """Read files that somebody else wrote: what they make a library raise is a UserError.

    It may be any exception, a plain Exception of the tokenizers among them. Too little memory is
    no property of the files."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        name = "" if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: "
        raise UserError(f"{problem}: {name}{' '.join(str(error).split())[:300]}") from error


def with_lora(
    model: PreTrainedModel, lora: LoraConfig, start: str, output: Path, seed: int = 0
) -> PreTrainedModel | PeftModel:
    """The model with a fresh adapter drawn from the seed alone, or as it is for lora.r = 0.

    The adapter remembers `start` as its base, seen from `output`, where its checkpoints will lie.
    Raises UserError for target names that no module has."""
    if lora.r == 0:
        return model
    if isinstance(model, PeftModel):
        raise UserError(
            f"memory.quantization=nf4: {start} is an adapter, which 4-bit weights cannot take in; "
            "merge "
            f"it with weft-rl convert {start} out=... to=upstream, and start from that"
        )
    # the head is left out by what it is: upstream calls it ff_out like the feed-forward layer
    head = model.get_output_embeddings()
    linear = {
        name: name.rsplit(".", 1)[-1]
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    }
    for target in lora.targets:
        if target not in linear.values():
            raise UserError(
                f"{lora.prefix}targets: no module is called {target}; there are "
                + ", ".join(sorted(set(linear.values())))
            )
    # PEFT takes the name from the model itself, which keeps that of the first one it was read from:
    # an adapter on a merged adapter would name, and later be loaded on, the wrong base
    model.name_or_path = _named_by_adapter(start, output)
    targets = [name for name, last in linear.items() if last in lora.targets]
    config = PeftLoraConfig(
        r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets
    )
    # PEFT draws an adapter's first matrices from the global random state, which stays as it was
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # noqa: TID251 - PEFT takes no generator
        return _in_order(get_peft_model(model, config))


def _in_order(model: PeftModel) -> PeftModel:
    """The model, whose adapter_config.json is the same in every process.

    PEFT keeps names in sets and writes them in the order of their hashes, which differ."""
    for config in model.peft_config.values():
        for name, value in vars(config).items():
            if isinstance(value, set):
                setattr(config, name, sorted(value))
    return model


def _named_by_adapter(start: str, output: Path) -> str:
    """What an adapter in `output`, run/checkpoints/stage/step, calls its base.

    One within the run is named from there, so that the run folder can be moved; another one by its
    whole path, or as it is on the hub."""
    if not Path(start).is_dir():
        return start
    folder, place = Path(start).resolve(), output.resolve()
    run = [*place.parents][:3][-1]
    return os.path.relpath(folder, place) if folder.is_relative_to(run) else str(folder)


def fresh_model(config: PreTrainedConfig, seed: int) -> PreTrainedModel:
    """A model with random weights drawn from the seed alone, float32.

    Matrices are normal with the configuration's initializer_range, norms are one."""
    generator = torch.Generator().manual_seed(seed)
    # transformers initialises from the global random state, which stays as it was
    with torch.random.fork_rng(), set_zero3_state():
        model = AutoModelForMaskedLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=config.initializer_range, generator=generator)
    return model
