"""`python -m weft_rl.sample`: generate a completion and show its denoising steps."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, make_dataclass, replace
from functools import partial
from pathlib import Path
from re import fullmatch
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.table import Table
from rich.text import Text

from weft_rl.checkpoints.hub import resolve_checkpoint
from weft_rl.cli import execute, writing
from weft_rl.config.fields import Block, about, kinds, option, require, shown
from weft_rl.config.load import load_run_config, parse_options
from weft_rl.config.sampler import SamplerConfig
from weft_rl.data.prompts import PromptFormat, PromptStyle, chat_prompt
from weft_rl.data.tasks import task_prompt
from weft_rl.data.text import TextEncoder, check_wording, decode_completion, token_text
from weft_rl.distributed import resolve_device
from weft_rl.errors import UserError
from weft_rl.io.terminal import Console
from weft_rl.rewards.sudoku import answer_digits
from weft_rl.rewards.sudoku_grid import CELLS, DIGITS, SIZE, completions
from weft_rl.runs.atomic_io import write_json
from weft_rl.runs.folder import CONFIG, FINISHED, MODEL_FILES, read_config, read_json, run_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from weft_rl.sampler import SamplerOutput


@dataclass(frozen=True)
class SampleConfig(Block):
    """Options of `sample` besides those of the sampler."""

    checkpoint: str = field(
        metadata=about("checkpoint folder, run (its newest one), model name or Hub id")
    )
    prompt: str = field(metadata=about("text of the user, or the 16 digits of a puzzle, 0 empty"))
    system: str | None = option(None, "system message before the prompt; null: the run's, if any")
    seed: int = option(0, "random seed", at_least=0, below=2**32)
    device: str = option("auto", "auto, cpu, cuda or cuda:N")
    stream: bool = option(False, "show the completion while it is denoised")
    trace: bool = option(False, "write which token was unmasked at which step")
    out: str | None = option(None, "file of the trace; null: trace.json here")

    def __post_init__(self) -> None:
        super().__post_init__()
        rule = "is where the trace is written; add trace=true"
        require(self.trace or self.out is None, "out", self.out, rule)


# Sampler options; null: the evaluation settings of the checkpoint's run.
_SAMPLER_OPTIONS = [
    (item.name, kinds(SamplerConfig)[item.name] | None, field(default=None, metadata=item.metadata))
    for item in fields(SamplerConfig)
    if item.name not in ("early_stop", "trace", "compile")
]
SampleOptions = make_dataclass(
    "SampleOptions", _SAMPLER_OPTIONS, bases=(SampleConfig,), frozen=True
)


def main(argv: Sequence[str]) -> int:
    """Generate a completion for the prompt in the arguments; returns the exit status."""
    config: Any = parse_options(
        SampleOptions, argv, command="weft_rl.sample", description="A completion for a prompt."
    )
    origin = find_checkpoint(config.checkpoint)
    origin = origin._replace(system=config.system or origin.system)
    is_puzzle = origin.style is not None and fullmatch(r"[0-4]{16}", config.prompt) is not None
    prompt = config.prompt
    if origin.style is not None and is_puzzle:
        prompt = task_prompt(origin.style, "sudoku", {"puzzle": prompt}, origin.template)
    try:
        sampler = sampler_config(config, origin.sampler)
        tokenizer, ids, output = _generate(config, origin, sampler, prompt)
    except UserError as error:
        if not str(error).startswith("sampler."):
            raise
        raise UserError(str(error).replace("sampler.", "")) from error  # as in argv
    tokens = output.completions[0].tolist()
    completion = decode_completion(tokenizer, tokens[: int(output.lengths[0])])
    sys.stdout.write(f"{completion}\n")
    if is_puzzle:
        Console().print(draw_grid(config.prompt, completion))
        if not answer_digits(completion):
            sys.stdout.write("no answer in the completion; the grid shows the clues\n")
    if output.trace is not None:
        path = Path(config.out or "trace.json")
        trace = {
            "prompt": prompt,
            "prompt_tokens": [token_text(tokenizer, token) for token in ids],
            "completion": completion,
            "tokens": [token_text(tokenizer, token) for token in tokens],
            "steps": [
                {**step, "text": token_text(tokenizer, step["token"])} for step in output.trace[0]
            ],
        }
        with writing(path):
            write_json(path, trace)
        sys.stdout.write(f"trace: {path.resolve()}\n")
    return 0


class Origin(NamedTuple):
    """A checkpoint, and the prompts and sampler of its run."""

    folder: Path
    style: PromptStyle | None  # None: neither of a run nor a toy model
    sampler: SamplerConfig
    template: str | None = None
    system: str | None = None


def find_checkpoint(place: str | Path) -> Origin:
    """Return a checkpoint's folder, a run's newest or the Hub's, or raise UserError."""
    folder = resolve_checkpoint(str(place), option="checkpoint")
    if not any((folder / name).exists() for name in MODEL_FILES):
        raise UserError(
            f"checkpoint={place}: has neither a model ({' or '.join(MODEL_FILES)}) nor a run "
            f"({FINISHED}); name a folder like RUN/checkpoints/rl/step-80"
        )
    run, preset = run_of(str(folder)), "llada_8b"
    if run is not None and not {"prompt_style", "sampler"} <= read_config(run).keys():
        raise UserError(f"{run / CONFIG}: has no options of a run; repair or remove it")
    if run is None:
        vocabulary = read_json(folder / "tokenizer.json", {}).get("model", {}).get("vocab", {})
        preset = "tiny" if {"Sudoku:", " r1c1="} <= vocabulary.keys() else preset
    words = [f"model={folder}", *([f"preset={preset}"] if run is None else [])]
    defaults = load_run_config(words, command="weft_rl.sample")
    style = None if run is None and preset == "llada_8b" else defaults.prompt_style
    return Origin(folder, style, defaults.sampler, defaults.prompt_template, defaults.system)


def sampler_config(config: SampleConfig, defaults: SamplerConfig) -> SamplerConfig:
    """Return the sampler's options: arguments override defaults. Raises UserError for conflicts."""
    given = {name: getattr(config, name) for name, *_ in _SAMPLER_OPTIONS}
    chosen = {name: value for name, value in given.items() if value is not None}
    return replace(defaults, **chosen, trace=config.trace)


def _generate(
    config: SampleConfig, origin: Origin, sampler: SamplerConfig, prompt: str
) -> "tuple[PreTrainedTokenizerBase, list[int], SamplerOutput]":
    # keeps --help and option errors fast
    import torch
    from transformers.utils import logging

    from weft_rl.models.loading import load_model
    from weft_rl.models.tokenizer import load_tokenizer
    from weft_rl.sampler import generate
    from weft_rl.sampler.progress import live_completion, progress_bar

    logging.disable_progress_bar()
    device, tokenizer = resolve_device(config.device), load_tokenizer(str(origin.folder))
    check_wording(tokenizer, PromptFormat("d1", system=origin.system))
    encoder, chat = TextEncoder(tokenizer), chat_prompt(prompt, system=origin.system)
    try:
        (ids,) = encoder.chats([chat])
    except ValueError as error:
        raise UserError(f"prompt={shown(config.prompt)}: {error}; change the prompt") from error
    if not encoder.knows(chat, ids):
        raise UserError(
            f"prompt={shown(config.prompt)}: the model has no tokens for parts of it; the tiny "
            "model reads its own puzzles, like prompt=4320004330100004"
        )
    # float32 weights of an 8B model do not fit the GPU that trained it
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    model = load_model(str(origin.folder), device, dtype)
    display = progress_bar("sampling")
    if config.stream:
        display = live_completion(sampler.gen_length, partial(decode_completion, tokenizer))
    with display as on_step:
        prompts = torch.tensor([ids], device=device)
        output = generate(model, prompts, sampler, seeds=[config.seed], on_step=on_step)
    return tokenizer, ids, output


def draw_grid(puzzle: str, completion: str) -> Table:
    """Draw an answer: clues bold, correct cells green, wrong cells red, missing digits as dots."""
    answer = answer_digits(completion)
    digits = answer[:CELLS].ljust(CELLS, "·") if answer else puzzle.replace("0", "·")
    keys = completions(puzzle)
    cells = []
    for i, (clue, digit) in enumerate(zip(puzzle, digits, strict=True)):
        right = any(key[i] == digit for key in keys)  # in some solution
        style = "bold" if clue in DIGITS and right else "green" if right else "red"
        cells.append(Text(digit, style))
    grid = Table(show_header=False, show_lines=True)
    for start in range(0, CELLS, SIZE):
        grid.add_row(*cells[start : start + SIZE])
    return grid


if __name__ == "__main__":
    sys.exit(execute("weft_rl.sample", main, sys.argv[1:]))
