"""`python -m vidplat` is the `vidplat` command."""

import sys

from vidplat.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
