"""``python -m flowbdt.cli`` is the command ``flowbdt``."""

import sys

from .main import main

if __name__ == "__main__":
    sys.exit(main())
