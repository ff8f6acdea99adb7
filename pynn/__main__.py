"""``python -m pynn`` is the command ``pynn``."""

import sys

from pynn.cli import main

if __name__ == "__main__":  # not when pytest collects doctests
    sys.exit(main())
