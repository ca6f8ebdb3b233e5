"""python -m weft_rl.reproduce"""

import sys

from weft_rl.cli import execute
from weft_rl.reproduce.command import main

if __name__ == "__main__":
    sys.exit(execute("weft_rl.reproduce", main, sys.argv[1:]))
