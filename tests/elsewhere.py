"""What Windows lacks, both Darknets too, taken away: ``python -m pytest -p tests.elsewhere`` runs tests without it.

Other packages come first, for they look for it when they are imported.
"""

import os
import signal
import sys
from importlib import import_module

for name in ("cv2", "matplotlib.figure", "multiprocessing.connection", "numpy", "torch", "tqdm"):
    import_module(name)
sys.modules["fcntl"] = None
for module, names in (
    (os, "fork fchmod mkfifo sched_getaffinity O_NOFOLLOW O_NONBLOCK"),
    (signal, "SIGHUP SIGKILL SIGPIPE SIGQUIT pthread_sigmask"),
):
    for name in names.split():
        vars(module).pop(name, None)

oracle, alexeyab = import_module("tests.oracle"), import_module("tests.oracle.alexeyab")


def find_alexeyab():
    raise oracle.OracleMissing("tests.elsewhere")


alexeyab.find_alexeyab = find_alexeyab
oracle.LIBRARY = oracle.LIBRARY.with_name("none")
