#!/usr/bin/env python3
"""COCO's AP and AR of a results JSON: ``darknet-compat coco_eval`` as a script."""

import sys

from darknet_compat.cli import main

sys.exit(main(["coco_eval", *sys.argv[1:]]))
