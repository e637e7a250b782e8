"""Whether the Ray of a run's own is still there.

The rule of this file: a core process of Ray that has ended, and a folder of Ray's that is gone, are
told at once and end the run; Ray's own library would wait a minute and then end the program without
a word, or wait for ever.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from unfused import signals
from unfused.events import Note, Stream
from unfused.runtime.starting import scratch

LOOK_SECONDS = 1.0
GRACE_SECONDS = 20.0
"""How long the main thread may take to come out."""
CORE = {"gcs_server": "control store", "raylet": "node"}
"""Ray's names of the processes that nothing goes on without, and what they are."""


class RayEnded(RuntimeError):
    """A core process of this run's own Ray has ended."""


@contextmanager
def watched(stream: Stream, leave: Callable[[], None]) -> Iterator[None]:
    """Look again and again whether this process's own Ray is there; where it is not, have the main
    thread of a program raise `RayEnded`.

    Args:
        stream: is told where nothing else can be done.
        leave: ends a program whose main thread does not come out of Ray's library.
    """
    done = threading.Event()

    def look() -> None:
        while not done.wait(LOOK_SECONDS):
            if text := lost():
                told = signals.end(RayEnded(text))
                if not told:
                    stream.emit(Note(text, level="warning"))
                elif not done.wait(GRACE_SECONDS):
                    more = "; the same command goes on from what is built"
                    stream.emit(Note(text + more, level="warning"))
                    leave()
                return

    thread = threading.Thread(target=look, name="watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def lost() -> str:
    """What this process's own Ray lacks to go on; "" where it has all."""
    if name := ended():
        return f"Ray's {CORE[name]} ({name}) has ended: killed, or no memory was left"
    place = scratch()
    if place is not None and not place.exists():
        return (
            f"{place.parent}, which Ray keeps its sockets in, was removed; set TMPDIR to a folder"
            " that nothing cleans"
        )
    return ""


def ended() -> str | None:
    """Which core process of the Ray that this process has started has ended; None where all are
    there."""
    from ray._private import worker

    node = worker._global_node
    dead = node.dead_processes() if node else []
    return next((name for name, _ in dead if name in CORE), None)
