"""python -m weft_rl.plot"""

import sys

from weft_rl.cli import execute
from weft_rl.plot.command import main

if __name__ == "__main__":
    sys.exit(execute("weft_rl.plot", main, sys.argv[1:]))
