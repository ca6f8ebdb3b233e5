"""python -m weft_rl.pipeline"""

import sys

from weft_rl.cli import execute
from weft_rl.pipeline.run import main

if __name__ == "__main__":
    sys.exit(execute("weft_rl.pipeline", main, sys.argv[1:]))
