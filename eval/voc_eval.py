#!/usr/bin/env python3
"""VOC average precision of comp4 result files: ``darknet-compat voc_eval`` under the name people know."""

import sys

from darknet_compat.cli import main

sys.exit(main(["voc_eval", *sys.argv[1:]]))
