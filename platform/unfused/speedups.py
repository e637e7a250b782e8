"""Which clever parts are on: each is a swap in one file, for torch's or Ray's own way.

The rule of this file: every part gives what the plain way gives, up to rounding and random masks.
UNFUSED_SPEEDUPS is "all" (the default), "none", or names separated by commas.
"""

from __future__ import annotations

import os

SWITCH = "UNFUSED_SPEEDUPS"
NAMES = ("dropout", "lean", "log_mel")


def enabled(name: str) -> bool:
    """Whether the part called `name` (one of `NAMES`) is on."""
    chosen = os.environ.get(SWITCH, "all")
    return chosen == "all" or name in chosen.split(",")
