"""What a program does when it is told to end.

The rule of this file: whoever asks, a person's Ctrl-C, a container's manager, a terminal that is
closed, is answered alike; who asks twice is not kept waiting.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_listens = False
_asked = 0
_reason: BaseException | None = None
"""What the main thread is to raise (see `end`)."""


def listen() -> None:
    """End by a KeyboardInterrupt in the main thread, whichever of `ASKING` comes first, and at once
    at the second.

    What is ignored, as SIGHUP under nohup, stays so; threads beside the main one are not asked.
    """
    global _listens
    if threading.current_thread() is not threading.main_thread():
        return
    _listens = True
    for number in ASKING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)


def listen_again() -> None:
    """As `listen`, where this program has listened: Ray has a handler of its own for SIGTERM."""
    if _listens:
        listen()


def end(reason: BaseException) -> bool:
    """Have the main thread raise `reason`; called from another thread.

    Returns:
        Whether it will: this program has listened.
    """
    global _reason
    listens = signal.getsignal(signal.SIGTERM) is _stop
    if listens:
        _reason = reason
        os.kill(os.getpid(), signal.SIGTERM)
    return listens


def _stop(number: int, frame: FrameType | None) -> None:
    global _asked, _reason
    if _reason is not None:
        reason, _reason = _reason, None
        raise reason
    _asked += 1
    if _asked > 1:
        os._exit(128 + number)
    answer = signal.getsignal(signal.SIGINT)
    if callable(answer) and answer is not _stop:
        # A library that has its own way to end: Ray Tune's finishes its trials' records.
        answer(signal.SIGINT, frame)
        return
    raise KeyboardInterrupt
