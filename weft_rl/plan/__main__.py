"""python -m weft_rl.plan"""

import sys

from weft_rl.cli import execute
from weft_rl.plan.command import main

if __name__ == "__main__":
    sys.exit(execute("weft_rl.plan", main, sys.argv[1:]))
