"""Who builds which key on a cluster that several runs share.

The rule of this file: a key has one builder at a time, and a dead one's lease passes on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from unfused.runtime.relay import RemoteMethod

LEASE_SECONDS = 30.0
"""How long a lease lasts that nobody renews."""
POLL_SECONDS = 0.5


class LeaseTable:
    """The actor that all runs on a cluster ask."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[str, float]] = {}

    def acquire(self, key: str, holder: str) -> bool:
        """Take or renew the lease of `key`; False while somebody else holds it."""
        owner, expires = self._held.get(key, (holder, 0.0))
        if owner != holder and expires > time.monotonic():
            return False
        self._held[key] = (holder, time.monotonic() + LEASE_SECONDS)
        return True

    def release(self, key: str, holder: str) -> None:
        if self._held.get(key, ("", 0.0))[0] == holder:
            del self._held[key]


class Leases(Protocol):
    """The handle of a `LeaseTable`."""

    acquire: RemoteMethod
    release: RemoteMethod


def shared_leases(options: Mapping[str, Any]) -> Leases:
    """The one `LeaseTable` of this cluster, started with these options where there is none yet."""
    import ray

    actor = ray.remote(LeaseTable)
    return actor.options(name="leases", get_if_exists=True, lifetime="detached", **options).remote()


@contextmanager
def held(
    leases: Leases,
    keys: Sequence[str],
    holder: str,
    waiting: Callable[[str], AbstractContextManager[None]],
) -> Iterator[None]:
    """Hold the leases of `keys`, waiting for other builders of the same keys.

    Args:
        keys: as `stage/digest`.
        holder: who asks; the same one is never waited for.
        waiting: entered with each key that somebody else builds, while it is waited for.
    """
    stop = threading.Event()
    for key in sorted(keys):
        _wait(leases, key, holder, waiting)
    beat = threading.Thread(target=_renew, args=(leases, keys, holder, stop), daemon=True)
    beat.start()
    try:
        yield
    finally:
        stop.set()
        for key in keys:
            leases.release.remote(key, holder)


def _wait(
    leases: Leases, key: str, holder: str, waiting: Callable[[str], AbstractContextManager[None]]
) -> None:
    import ray

    if ray.get(leases.acquire.remote(key, holder)):
        return
    with waiting(key):
        while not ray.get(leases.acquire.remote(key, holder)):
            time.sleep(POLL_SECONDS)


def _renew(leases: Leases, keys: Sequence[str], holder: str, stop: threading.Event) -> None:
    while not stop.wait(LEASE_SECONDS / 3):
        for key in keys:
            leases.acquire.remote(key, holder)
