"""Makes `python -m annidx` the same as the command `annidx`. Owns nothing else."""

import sys

from annidx.cli import main

if __name__ == "__main__":
    sys.exit(main())
