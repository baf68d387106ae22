"""``python -m lnz.cli``."""

import sys

from lnz.cli import main

sys.exit(main())
