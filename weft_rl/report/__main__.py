"""python -m weft_rl.report"""

import sys

from weft_rl.cli import execute
from weft_rl.report.run_page import main

if __name__ == "__main__":
    sys.exit(execute("weft_rl.report", main, sys.argv[1:]))
