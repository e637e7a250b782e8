"""Why a recording cannot be used.

The rule of this file: a reason is a few words that clips share, so that it can be counted; what was
seen of the one at hand stands behind it.
"""

from __future__ import annotations


class BadClip(ValueError):
    """A clip that cannot be used.

    `reason` is "not audio", "empty", "truncated", "NaN or infinite samples", "not in [-1, 1]" or
    "longer than N s"; the text adds what was seen.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail

    def __str__(self) -> str:
        return ": ".join(filter(None, self.args))
