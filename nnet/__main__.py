"""`python -m nnet`: the `nnet` command."""

import sys

from nnet_command import main

if __name__ == "__main__":
    sys.exit(main())
