"""``python -m fastgate``: the same as the ``fastgate`` command."""

import sys

from fastgate.cli import main

if __name__ == "__main__":
    sys.exit(main())
