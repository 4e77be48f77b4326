"""``python -P container.py PARENT MODULE:FUNCTION [ARGUMENT ...]``: the process of a container.

It ends with whoever started it, however that one ends, so that nothing is ever left behind.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(arguments: list[str]) -> int:
    """Run the program; its exit code."""
    parent, program, *rest = arguments
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        return 1  # it ended before the kernel was told to tell us
    module, _, function = program.partition(":")
    sys.argv = [module.split(".")[1] if module.startswith("isthmus.") else module, *rest]
    return int(getattr(importlib.import_module(module), function)() or 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
