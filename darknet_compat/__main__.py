"""``python -m darknet_compat``: the same as the command ``darknet-compat``."""

import sys

from .cli import main

sys.exit(main())
