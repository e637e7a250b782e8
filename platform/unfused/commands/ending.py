"""How the listeners of a command learn that it has ended.

The rule of this file: whatever ends a run, every listener is told once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from unfused import display, terminal
from unfused.events import RunFinished, Stream


@contextmanager
def announcing_end(
    stream: Stream, shown: display.Plain | terminal.Live, summary: dict[str, Any] | None = None
) -> Iterator[None]:
    """Tell a stream how the body ends: finished, killed, or failed and why.

    Args:
        stream: of the run.
        shown: its display, which ends with it.
        summary: what the body fills for the subscribers.
    """
    status, reason = "FAILED", ""
    try:
        yield
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    except Exception as error:
        reason = str(error)
        raise
    finally:
        shown.close()
        stream.emit(RunFinished(status, summary or None, reason))
