"""Vocabulary and maximum length of the tiny model."""

BOS, EOS, EOT, MASK, UNKNOWN = (
    "<|startoftext|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|mdm_mask|>",
    "<|unknown|>",
)
CELL_NAMES = [f"r{row}c{column}" for row in range(1, 5) for column in range(1, 5)]
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

POSITIONS = 256  # prompt and completion take about 60
