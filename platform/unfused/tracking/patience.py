"""Calls of MLflow, tried again for as long as it is away.

The rule of this file: what passes by itself is waited for, in order; what MLflow refuses is raised
at once. A call may have come through although its answer did not, so one that must not be made
twice says how it is found again.
"""

from __future__ import annotations

import errno
import math
import re
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from unfused.config import ConfigError

T = TypeVar("T")

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0
STUMBLES = 6
"""Tries of a call that a server answers with an error of its own."""
PASSING = (
    "TEMPORARILY_UNAVAILABLE", "DEADLINE_EXCEEDED", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED",
    "ABORTED", "CANCELLED",
)  # fmt: skip
AWAY = re.compile(r"API request to .* failed with (exception|timeout|error code 5)", re.DOTALL)
FOR_GOOD = ("no such table", "no such column", "malformed", "not a database")
"""What a database says that waiting does not help."""
AUTOFLUSH = "Query-invoked autoflush"
"""In the line that SQLAlchemy puts before what a database says."""
HELD = ("PERMISSION_DENIED", "CUSTOMER_UNAUTHORIZED", "UNAUTHENTICATED")
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ENETUNREACH, errno.EHOSTUNREACH)
CLOUDS = ("botocore", "boto3", "s3transfer", "google", "azure")


class GivenUp(Exception):
    """MLflow did not take something in time, or not now; the message says why."""


class NotYet(Exception):
    """What a call needs is not there yet."""


class Patience:
    """Tries calls again while MLflow is away.

    Args:
        most: seconds of trouble after which it gives up.
        heard: called when trouble begins.
    """

    def __init__(
        self, most: float = math.inf, heard: Callable[[], None] = lambda: None
    ) -> None:
        self.most, self._heard = most, heard
        self.over = False
        """Whether nothing is tried any more."""
        self.since: float | None = None
        """When the trouble that lasts began (monotonic seconds)."""
        self.reason = ""
        """Of the last trouble."""
        self._woken = threading.Event()

    def hurry(self) -> None:
        """Try again now."""
        self._woken.set()

    def give_up(self) -> None:
        """Let the call that is tried be the last."""
        self.over = True
        self._woken.set()

    def try_on(self, call: Callable[[], T], again: Callable[[], T] | None = None) -> T:
        """What a call returns, once it does.

        Args:
            call: made at first.
            again: made in its place once it may have come through unheard.

        Raises:
            GivenUp: it lasts too long, or it is refused for want of a right.
            Exception: what MLflow refuses.
        """
        pause, stumbled = FIRST_PAUSE, 0
        while not self.over:
            began = time.monotonic()
            try:
                result = call()
            except Exception as error:
                stumbled += stumbles(error)
                if held(error):
                    raise GivenUp(told(error)) from error
                if not passes(error) or stumbled >= STUMBLES:
                    raise
                self._trouble(error, began)
            else:
                self.since = None
                return result
            call = again or call
            self._woken.wait(pause)
            self._woken.clear()
            pause = min(2 * pause, LONGEST_PAUSE)
        raise GivenUp(self.reason)

    def _trouble(self, error: Exception, began: float) -> None:
        self.reason = told(error)
        if not isinstance(error, NotYet) and self.since is None:
            self.since = began
            self._heard()
        if time.monotonic() - began > self.most or self._lasts() > self.most:
            self.over = True

    def _lasts(self) -> float:
        return time.monotonic() - self.since if self.since else 0.0


class PatientClient:
    """MLflow's client, whose calls are tried again; `plain` is the client itself."""

    def __init__(self, client: Any, patience: Patience) -> None:
        self.plain, self.patience = client, patience

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.plain, name)
        return lambda *given, **named: self.patience.try_on(partial(method, *given, **named))


def passes(error: Exception) -> bool:
    """Whether what went wrong may be right later."""
    text, code = str(error), getattr(error, "error_code", "")
    if isinstance(error, NotYet):
        return True
    if any(reason in text for reason in FOR_GOOD):
        return False
    if code:
        return code in PASSING or bool(AWAY.match(text)) or stumbles(error)
    if stumbles(error):
        return True
    if isinstance(error, OSError):
        return _connection(error)
    return _root(error) == "sqlalchemy" and type(error).__name__ == "OperationalError"


def stumbles(error: Exception) -> bool:
    """Whether a server answered with an error that may be the call's own."""
    if _root(error) in CLOUDS:
        return True
    inner = getattr(error, "error_code", "") == "INTERNAL_ERROR"
    return inner and not AWAY.match(str(error))


def held(error: Exception) -> bool:
    """Whether a person must do something first, after which it is right."""
    text = str(error)
    damaged = "malformed" in text or "not a database" in text
    return damaged or getattr(error, "error_code", "") in HELD


def told(error: Exception) -> str:
    """What went wrong: our own sentence, or the first line of a library's without what is put
    around it."""
    if isinstance(error, ConfigError):
        return str(error)
    if AWAY.match(str(error)):
        return "it does not answer"
    lines = [line for line in str(error).splitlines() if line.strip() and AUTOFLUSH not in line]
    text = next(iter(lines), type(error).__name__)
    return re.sub(r"^\(\w+(\.\w+)*\) |\(Background on this error.*$", "", text)[:200]


def _connection(error: OSError) -> bool:
    if _root(error) == "requests":
        answer = getattr(error, "response", None)
        return answer is None or answer.status_code >= 500 or answer.status_code == 429
    return isinstance(error, ConnectionError | TimeoutError) or error.errno in DISK


def _root(error: Exception) -> str:
    return type(error).__module__.partition(".")[0]
