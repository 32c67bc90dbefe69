"""`python -m marketfeed`, the same as the command `marketfeed`."""

import sys

from marketfeed.commands import main

if __name__ == "__main__":
    sys.exit(main())
