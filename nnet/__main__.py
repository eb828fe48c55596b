"""`python -m nnet`: the `nnet` command."""

import sys

from nnet.cli import main

if __name__ == "__main__":
    sys.exit(main())
