"""The tiny world's language: its symbols, each a token, and how many of them a text may have."""

from weft_rl.data.prompts import CELL_NAMES

BOS, EOS, EOT, MASK, UNKNOWN = (
    "<|startoftext|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|mdm_mask|>",
    "<|unknown|>",
)
HEADERS = [f"<|start_header_id|>{role}<|end_header_id|>\n\n" for role in ("user", "assistant")]
_TAGS = ["<reasoning>", "</reasoning>", "<answer>", "</answer>"]
_GRIDS = ["Sudoku:", "Latin:", "Bands:", "Stacks:"]
_TASKS = ["Countdown: ", "Compute: ", "Sort: ", "Reverse: "]
_CELLS = [f" {cell}=" for cell in CELL_NAMES]
SYMBOLS = [
    *(MASK, EOS, BOS, EOT, UNKNOWN),
    *HEADERS,
    *_TAGS,
    *_GRIDS,
    *_TASKS,
    *_CELLS,
    *"0123456789+-*/()= ",
]

POSITIONS = 256  # prompt and canvas take about 60
