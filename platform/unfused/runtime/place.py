"""A folder of this process's own, for what a Ray that it starts keeps: sockets, logs, the token.

    <TMPDIR, or /tmp>/unfused-<uid>/    this user's alone
        <random>/                       one process's
            token                       without which nobody talks to its Ray
            tmp/                        what its processes make for a while
            session_<...>/              Ray's own: sockets, logs, objects that are spilled

The rule of this file: nobody else can read, replace or foresee what is there, and it goes with the
process; what one that was killed has left goes when the next one starts.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from unfused import locks
from unfused.config import ConfigError

MOST_SOCKET_BYTES = 107
"""Of a socket's path, on Linux."""
RAYS_SOCKET = "session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
"""The longest path that Ray has below its folder."""
ROOTS = ("/tmp", "/var/tmp", "/dev/shm")
"""Where there is no usable RAY_TMPDIR or TMPDIR."""


class NoPlace(ConfigError):
    """There is no folder that Ray could use."""


@dataclass(frozen=True)
class Place:
    """The folder; held for as long as `descriptor` is open."""

    folder: Path
    descriptor: int

    @classmethod
    def make(cls) -> Place:
        """A new one, with a new token; clears what dead processes have left beside it.

        Raises:
            NoPlace: no root is writable and short enough.
        """
        refused = []
        for root in _roots():
            user = root / f"unfused-{os.geteuid()}"
            try:
                # Two processes do not look at each other's folders half made.
                with _private(user):
                    sweep(user)
                    return cls._new(user)
            except (OSError, locks.LockError) as error:
                refused.append(f"{root} ({getattr(error, 'strerror', None) or error})")
        raise NoPlace(
            f"Ray needs a folder for its sockets and cannot use {', '.join(refused)}; set TMPDIR"
            f" to a folder of yours with a path of at most {_most_root_bytes()} bytes."
        )

    @classmethod
    def _new(cls, user: Path) -> Place:
        folder = Path(tempfile.mkdtemp(prefix="", dir=user))
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            place = cls(folder, descriptor)
            place.token.touch(0o600, exist_ok=False)
            place.token.write_text(secrets.token_hex(32))
            place.scratch.mkdir()
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return place

    @property
    def token(self) -> Path:
        """What Ray's processes show one another."""
        return self.folder / "token"

    @property
    def scratch(self) -> Path:
        """Files that processes make for a while."""
        return self.folder / "tmp"

    def remove(self) -> None:
        """Remove the folder and all that is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self.descriptor)


def sweep(user: Path) -> None:
    """Remove the folders of processes that are gone.

    Args:
        user: the folder of this user's, held.
    """
    for folder in user.iterdir():
        with suppress(OSError), _opened(folder) as one:
            fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)


def _roots() -> list[Path]:
    """Folders to try, in order: short enough for the sockets below them."""
    named = (os.environ.get(name) for name in ("RAY_TMPDIR", "TMPDIR"))
    every = [Path(root).absolute() for root in (*filter(None, named), *ROOTS)]
    short = [root for root in every if len(os.fsencode(root)) <= _most_root_bytes()]
    return list(dict.fromkeys(short))


def _most_root_bytes() -> int:
    below = Path(f"unfused-{os.geteuid()}") / "12345678" / RAYS_SOCKET
    return MOST_SOCKET_BYTES - len(f"/{below}")


@contextmanager
def _private(folder: Path) -> Iterator[None]:
    """Hold a folder that this user alone may use, made where there is none.

    Raises:
        locks.LockError: what is there is a link, no folder, or somebody else's.
    """
    opened = locks.private_folder(folder)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
