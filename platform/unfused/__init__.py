"""UnFuSeD on Ray: learn audio classifiers from few labels, and trust the numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unfused.api import run, search
    from unfused.inference import load

__version__ = "0.1.0"
__all__ = ["__version__", "load", "run", "search"]


def __getattr__(name: str) -> object:
    """`unfused.load`, `run` and `search`, once asked for: what they need takes a second to
    import."""
    if name == "load":
        from unfused.inference import load

        return load
    if name in ("run", "search"):
        from unfused import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
