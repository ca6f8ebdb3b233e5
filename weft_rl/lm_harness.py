"""lm-evaluation-harness with our models: `python -m weft_rl.lm_harness run --model weft_rl ...`.

The harness finds only models that it lists itself, so this command makes ours known and hands all
its arguments on. Needs `pip install 'weft-rl[lm-eval]'`.

    python -m weft_rl.lm_harness run --model weft_rl --tasks gsm8k \\
        --model_args pretrained=runs/a/checkpoints/rl/step-200,gen_length=256,block_length=32"""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec

from weft_rl.cli import execute
from weft_rl.errors import UserError


def main(argv: Sequence[str]) -> int:
    """The harness's own command line; returns 0. Raises UserError where it is not installed."""
    if find_spec("lm_eval") is None:
        raise UserError("lm_eval is not installed; pip install 'weft-rl[lm-eval]'")
    import_module("weft_rl.harness_model")  # which registers it
    import_module("lm_eval.__main__").cli_evaluate()  # reads sys.argv, which argv is from
    return 0


if __name__ == "__main__":
    sys.exit(execute("weft_rl.lm_harness", main, sys.argv[1:]))
