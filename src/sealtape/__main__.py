"""``python -m sealtape`` is the command ``sealtape``."""

import sys

from sealtape.indexer.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
