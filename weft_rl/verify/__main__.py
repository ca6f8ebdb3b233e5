"""python -m weft_rl.verify"""

import sys

from weft_rl.cli import execute
from weft_rl.verify.command import main

if __name__ == "__main__":
    sys.exit(execute("weft_rl.verify", main, sys.argv[1:]))
