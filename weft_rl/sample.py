"""`sample`: a checkpoint's answer to a prompt, and how it was denoised."""

import errno
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from re import fullmatch
from typing import TYPE_CHECKING, Any, get_args

from rich.table import Table
from rich.text import Text

from weft_rl.cli import execute
from weft_rl.config.fields import Block, about, option, require, shown
from weft_rl.config.load import load_run_config, parse_options
from weft_rl.config.sampler import SamplerConfig
from weft_rl.data.prompts import PromptStyle, chat_prompt, task_prompt
from weft_rl.data.text import TextEncoder, decode_completion
from weft_rl.errors import UserError
from weft_rl.io.terminal import Console
from weft_rl.rewards.sudoku import answer_digits
from weft_rl.rewards.sudoku_grid import CELLS, DIGITS, SIZE, completions
from weft_rl.runs.folder import CONFIG, FINISHED, read_config, read_json, write_json
from weft_rl.runs.origins import MODEL_FILES, checkpoint_of, run_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from weft_rl.sampler import SamplerOutput

_STYLES: dict[str, PromptStyle] = {style: style for style in get_args(PromptStyle)}
# The options that are the sampler's, under their names there.
_SAMPLER = (
    *("temperature", "gen_length", "block_length", "steps", "remasking", "cfg_scale", "threshold"),
    *("factor", "cache", "refresh_every", "end_tokens"),
)
_COLOURS = {True: "green", False: "red"}  # of a cell that was to be filled


@dataclass(frozen=True)
class SampleConfig(Block):
    """Options of `sample`; null takes what the checkpoint's run was evaluated with."""

    checkpoint: str = field(metadata=about("a checkpoint's folder, or a run's: its newest one"))
    prompt: str = field(metadata=about("what the user says, or a puzzle's 16 digits, 0 for empty"))
    temperature: float | None = option(None, "0 takes the most probable token", at_least=0)
    gen_length: int | None = option(None, "tokens generated", at_least=1)
    block_length: int | None = option(None, "tokens of a block, done left to right", at_least=1)
    steps: int | None = option(None, "denoising steps in all", at_least=1)
    remasking: str | None = option(None, "low_confidence or random")
    cfg_scale: float | None = option(None, "classifier-free guidance; 0 is off", at_least=0)
    threshold: float | None = option(
        None, "commit all tokens this confident", at_least=0, at_most=1
    )
    factor: float | None = option(None, "commit n while the n-th is sure enough", at_least=0)
    cache: str | None = option(None, "none, prefix or dual: keys and values kept within a block")
    refresh_every: int | None = option(None, "steps between a cache's full forwards", at_least=1)
    end_tokens: str | None = option(None, "free, late, never or no_eos")
    seed: int = option(0, "of the draws", at_least=0, below=2**32)
    device: str = option("auto", "auto, cpu, cuda or cuda:N")
    stream: bool = option(False, "show the completion while it fills up")
    trace: bool = option(False, "write which token was committed at which step")
    out: str | None = option(None, "the trace's file; null: trace.json here")

    def __post_init__(self) -> None:
        super().__post_init__()
        known = fullmatch(r"auto|cpu|cuda(:[0-9]+)?", self.device)
        require(known is not None, "device", self.device, "must be auto, cpu, cuda or cuda:N")
        rule = "is where the trace is written; add trace=true"
        require(self.trace or self.out is None, "out", self.out, rule)


@dataclass(frozen=True)
class Origin:
    """A checkpoint's folder, and how its run poses problems and samples."""

    folder: Path
    style: PromptStyle | None  # None: of no run, and not the tiny model
    sampler: SamplerConfig


def main(argv: Sequence[str]) -> int:
    """Answer the prompt in the arguments; returns the exit status."""
    about_it = "A checkpoint's answer to a prompt."
    config = parse_options(SampleConfig, argv, command="weft_rl.sample", description=about_it)
    origin = find_checkpoint(Path(config.checkpoint))
    sampler = sampler_config(config, origin.sampler)
    is_puzzle = origin.style is not None and fullmatch(r"[0-4]{16}", config.prompt) is not None
    prompt = config.prompt
    if origin.style is not None and is_puzzle:
        prompt = task_prompt(origin.style, "sudoku", {"puzzle": prompt})
    tokenizer, ids, output = _generate(config, origin.folder, sampler, prompt)
    length = int(output.lengths[0])
    completion = decode_completion(tokenizer, output.completions[0, :length].tolist())
    sys.stdout.write(f"{completion}\n")
    if is_puzzle:
        Console().print(draw_grid(config.prompt, completion))
        if not answer_digits(completion):
            sys.stdout.write("no answer was found in it; the grid has the clues alone\n")
    if output.trace is not None:
        tokens, steps = output.completions[0].tolist(), output.trace[0]
        trace = {
            "prompt": prompt,
            "prompt_tokens": [decode_completion(tokenizer, [token]) for token in ids],
            "completion": completion,
            "tokens": [decode_completion(tokenizer, [token]) for token in tokens],
            "steps": [
                {**step, "text": decode_completion(tokenizer, [step["token"]])} for step in steps
            ],
        }
        _write_trace(Path(config.out or "trace.json"), trace)
    return 0


def _write_trace(path: Path, trace: dict[str, Any]) -> None:
    try:
        write_json(path, trace)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise  # no mistake of the user's
        raise UserError(
            f"out={path}: cannot be written ({error.strerror}); choose another"
        ) from error
    sys.stdout.write(f"trace: {path.resolve()}\n")


def find_checkpoint(place: Path) -> Origin:
    """The checkpoint that a folder is, or the newest stage's of the run that it is.

    Raises UserError for any other folder and for one that is not there."""
    if not place.is_dir():
        raise UserError(f"checkpoint={place}: no such folder; name a checkpoint's, or a run's")
    folder = Path(checkpoint_of(str(place), "checkpoint"))
    if not any((folder / name).exists() for name in MODEL_FILES):
        raise UserError(
            f"checkpoint={place}: holds neither a model ({' or '.join(MODEL_FILES)}) nor a run "
            f"({FINISHED}); name a folder like RUN/checkpoints/rl/step-80"
        )
    run = run_of(str(folder))
    if run is not None:
        return Origin(folder, *_settings(run / CONFIG))
    is_tiny = _is_tiny(folder)
    preset = load_run_config([f"preset={'tiny' if is_tiny else 'llada_8b'}"], command="sample")
    return Origin(folder, "tiny" if is_tiny else None, preset.sampler)


def _settings(path: Path) -> tuple[PromptStyle, SamplerConfig]:
    """A run's wording of prompts and its sampler. Raises UserError for a file without them."""
    try:
        saved = read_config(path.parent)
        return _STYLES[saved["prompt_style"]], SamplerConfig(**saved["sampler"])
    except (KeyError, TypeError, ValueError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{path}: holds no options of a run ({reason}); mend or remove it") from (
            error
        )


def _is_tiny(folder: Path) -> bool:
    """Whether a checkpoint outside of any run speaks the tiny world's language."""
    vocabulary = read_json(folder / "tokenizer.json", {}).get("model", {}).get("vocab", {})
    return "Sudoku:" in vocabulary and " r1c1=" in vocabulary


def sampler_config(config: SampleConfig, defaults: SamplerConfig) -> SamplerConfig:
    """The sampler's options: the arguments', elsewhere the defaults'. Raises UserError."""
    given = {name: getattr(config, name) for name in _SAMPLER}
    chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    try:
        return replace(defaults, **chosen, trace=config.trace)
    except UserError as error:
        # here they are no block of a run
        raise UserError(str(error).replace("sampler.", "")) from error


def _generate(
    config: SampleConfig, folder: Path, sampler: SamplerConfig, prompt: str
) -> "tuple[PreTrainedTokenizerBase, list[int], SamplerOutput]":
    """The tokenizer, the prompt's tokens and what was sampled."""
    # imported here: a help text or a wrong option must not wait for torch
    import torch
    from transformers.utils import logging

    from weft_rl.models.loading import load_model, load_tokenizer, resolve_device
    from weft_rl.sampler import generate
    from weft_rl.sampler.progress import filling_up, progress_bar

    logging.disable_progress_bar()  # a prompt's answer is all that is wanted on the screen
    device = resolve_device(config.device)
    tokenizer = load_tokenizer(str(folder))
    try:
        (ids,) = TextEncoder(tokenizer).chats([chat_prompt(prompt)])
    except ValueError as error:
        raise UserError(f"prompt={shown(config.prompt)}: {error}; change the prompt") from error
    if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids:
        raise UserError(
            f"prompt={shown(config.prompt)}: the model has no tokens for some of it; the tiny "
            "model reads its own puzzles, like prompt=4320004330100004"
        )
    # float32 of 8 billion weights would not fit a GPU that trained them
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    model = load_model(str(folder), device, dtype)
    longest = getattr(model.config, "max_position_embeddings", None)
    if longest is not None and len(ids) + sampler.gen_length > longest:
        raise UserError(
            f"gen_length={sampler.gen_length}: with the prompt's {len(ids)} tokens more than the "
            f"model's {longest}; cut the prompt or generate less"
        )
    prompts = torch.tensor([ids], device=device)
    shown_as = progress_bar("sampling")
    if config.stream:
        decode = partial(decode_completion, tokenizer)
        shown_as = filling_up(sampler.gen_length, decode)
    with shown_as as on_step:
        output = generate(model, prompts, sampler, seeds=[config.seed], on_step=on_step)
    return tokenizer, ids, output


def draw_grid(puzzle: str, completion: str) -> Table:
    """The answer in a completion as a grid: clues bold, other cells green or red, · for none.

    Without an answer the clues alone."""
    answer = answer_digits(completion)
    given = puzzle.replace("0", "·")
    digits = answer[:CELLS].ljust(CELLS, "·") if answer else given
    keys = completions(puzzle)
    grid = Table(show_header=False, show_lines=True)
    cells = []
    for i, (clue, digit) in enumerate(zip(puzzle, digits, strict=True)):
        # right is what some solution has there; none has another digit than a clue
        right = any(key[i] == digit for key in keys)
        cells.append(Text(digit, "bold" if clue in DIGITS and right else _COLOURS[right]))
    for start in range(0, CELLS, SIZE):
        grid.add_row(*cells[start : start + SIZE])
    return grid


if __name__ == "__main__":
    sys.exit(execute("weft_rl.sample", main, sys.argv[1:]))
