"""python -m weft_rl.compare"""

import sys

from weft_rl.cli import execute
from weft_rl.compare.command import main

if __name__ == "__main__":
    sys.exit(execute("weft_rl.compare", main, sys.argv[1:]))
