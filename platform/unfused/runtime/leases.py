"""Who builds which key, where several runs share a cluster or a store on a disk.

The rule of this file: a key has one builder at a time, and a dead one's lease passes on. On a
cluster that takes a heartbeat; on a disk the lease is a lock, which the kernel lets go of when its
holder dies.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Protocol

from unfused import locks
from unfused.runtime.relay import RemoteMethod
from unfused.store import BEGUN, Folder, Store

LEASE_SECONDS = 30.0
"""How long a lease lasts that nobody renews."""
POLL_SECONDS = 0.5
ABANDONED_SECONDS = 86400.0
"""After how long nobody is thought to make any more what nobody has added to."""
WORK = "work"
"""The folder of a store that leases lie in, beside what is being made."""


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


Waiting = Callable[[str], AbstractContextManager[None]]
"""Entered with each key that somebody else builds, while it is waited for."""
Check = Callable[[], None]
"""Called again and again while somebody is waited for; raises where that is to end."""


@contextmanager
def held(
    leases: Leases, keys: Sequence[str], holder: str, waiting: Waiting, check: Check
) -> Iterator[None]:
    """Hold the leases of `keys`, waiting for other builders of the same keys.

    Args:
        leases: of the cluster.
        keys: as `stage/digest`.
        holder: who asks; the same one is never waited for.
        waiting: see `Waiting`.
        check: see `Check`.
    """
    import ray

    stop = threading.Event()
    for key in sorted(keys):
        _wait(lambda key=key: ray.get(leases.acquire.remote(key, holder)), key, waiting, check)
    beat = threading.Thread(target=_renew, args=(leases, keys, holder, stop), daemon=True)
    beat.start()
    try:
        yield
    finally:
        stop.set()
        for key in keys:
            leases.release.remote(key, holder)


@contextmanager
def held_on_disk(
    store: Path, keys: Sequence[str], waiting: Waiting, check: Check
) -> Iterator[None]:
    """Hold the leases of `keys` in a store, waiting for other builders of this user's.

    Args:
        store: its folder.
        keys: as `stage/digest`; another thread of this process is waited for as well.
        waiting: see `Waiting`.
        check: see `Check`.

    Raises:
        locks.LockError: the place of a lock is taken by what is none.
        locks.NoLocks: the file system has none; nothing is held.
    """
    with ExitStack() as taken:
        # Sorted, so that of two that want the same keys neither has what the other waits for.
        for key in sorted(set(keys)):
            guarded = _guarded(store, key)
            lock = _wait(lambda guarded=guarded: locks.take(guarded), key, waiting, check)
            taken.callback(lock.release)
        yield


def alone(store: Folder, key: str) -> AbstractContextManager[None]:
    """Holds the lease of a key that takes a moment to build; in a store on a disk that has locks.

    Args:
        store: its folder.
        key: as `stage/digest`.

    Raises:
        locks.LockError: the place of the lock is taken by what is none.
    """
    return nullcontext() if store.local is None else locks.held(_guarded(store.local, key))


def sweep(store: Folder) -> None:
    """Remove what killed runs have left in a store: what they had begun to make, checkpoints of
    what is finished, and their leases.

    On an object store, which has no leases, what was begun is what nobody has added to for a day,
    and what of it was copied beside an artifact.
    """
    _sweep_checkpoints(Store(store))
    if store.local is None:
        _sweep_old(Store(store))
        return
    work = store.local / WORK
    for begun in [*work.glob("*")]:
        named = BEGUN.fullmatch(begun.name)
        with suppress(locks.LockError):
            if named and (lock := locks.take(work / named["lease"])):
                # Nobody makes it, or else they would hold this.
                shutil.rmtree(begun, ignore_errors=True)
                lock.release()
    locks.sweep(work)


def _sweep_checkpoints(store: Store) -> None:
    """Remove those that a run has left which was killed once its artifact was there, or, on an
    object store, before its own that came late."""
    place = store.root.local
    # They may be somebody else's.
    with suppress(OSError, locks.LockError):
        for stage, key in [*store.outlived()]:
            if place is None:
                store.checkpoints(stage, key).delete()
            elif lock := locks.take(_guarded(place, f"{stage}/{key}")):
                store.checkpoints(stage, key).delete()
                lock.release()


def _sweep_old(store: Store) -> None:
    work, newest = store.root / WORK, dict[str, float]()
    for info in work.files():
        begun = info.path.removeprefix(f"{work.path}/").partition("/")[0]
        newest[begun] = max(newest.get(begun, 0.0), (info.mtime_ns or time.time_ns()) / 1e9)
    for begun, added in newest.items():
        if time.time() - added > ABANDONED_SECONDS:
            store.forget(begun)


def _guarded(store: Path, key: str) -> Path:
    return store / WORK / key.replace("/", "-")


def _wait(take: Callable[[], Any], key: str, waiting: Waiting, check: Check) -> Any:
    """What `take` gives as soon as that is something."""
    if taken := take():
        return taken
    with waiting(key):
        while not (taken := take()):
            check()
            time.sleep(POLL_SECONDS)
    return taken


def _renew(leases: Leases, keys: Sequence[str], holder: str, stop: threading.Event) -> None:
    while not stop.wait(LEASE_SECONDS / 3):
        for key in keys:
            leases.acquire.remote(key, holder)
