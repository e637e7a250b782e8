"""Locks between the processes of one user, each for a file or a folder that one at a time may use.

    <folder>/.unfused-<uid>/<name>.lock    of <folder>/<name>, for as long as somebody holds it

The rule of this file: what is opened is a regular file of this user's in a folder of this user's
alone, reached without following a link; what is in it is never touched. The kernel lets a lock go
when its holder dies, so nobody has to say that he is alive. The folder lies beside what is guarded,
where all see it who see that, whatever their TMPDIR or container.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from unfused.config import ConfigError

NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
"""What file systems say that know no `flock`."""
OF_ANOTHER_KIND = (errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENXIO)
"""What is said of links, and of all that is no file or no folder."""


OF_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


class LockError(ConfigError):
    """A lock cannot be used; the message is one sentence that names the remedy."""


class NoRoomForLock(LockError):
    """The disk that a lock was to be on is full, read-only or fails, as `error` says."""

    def __init__(self, place: Path, error: OSError) -> None:
        super().__init__(f"Cannot make {place} ({error.strerror}); see to its disk.")
        self.error = error


class NoLocks(LockError):
    """The file system has no locks."""


@dataclass(frozen=True)
class Lock:
    """One that is held: the descriptors of its folder and of its file."""

    folder: int
    file: int
    guarded: Path

    def release(self) -> None:
        """Let go of it, and leave nothing behind where nobody else waits."""
        try:
            # While it is held: who waits for this file finds another in its place, or none.
            with suppress(OSError):
                os.unlink(_name(self.guarded), dir_fd=self.folder)
            with suppress(OSError):
                os.rmdir(folder_of(self.guarded))
            # A child that was forked has the descriptor too.
            fcntl.flock(self.file, fcntl.LOCK_UN)
        finally:
            os.close(self.file)
            os.close(self.folder)


def folder_of(guarded: Path) -> Path:
    """Where the lock of a file or a folder lies."""
    return guarded.parent / f".unfused-{os.geteuid()}"


def _name(guarded: Path) -> str:
    return f"{guarded.name}.lock"


@contextmanager
def held(guarded: Path) -> Iterator[None]:
    """Hold the lock of `guarded`, which need not be there, and wait for it.

    Where the file system has none, nothing is held.

    Raises:
        LockError: see `take`.
    """
    try:
        lock = take(guarded, wait=True)
    except NoLocks:
        lock = None
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def take(guarded: Path, *, wait: bool = False) -> Lock | None:
    """The lock of `guarded`, which need not be there; its folder is made.

    Args:
        guarded: a file or a folder.
        wait: until another process, or another thread of this one, lets go of it.

    Returns:
        None where somebody holds it and `wait` is not asked for.

    Raises:
        LockError: what lies at its place is somebody else's, a link or no file; nothing was
            touched.
        NoLocks: the file system has none.
    """
    while True:
        with ExitStack() as opened, suppress(FileNotFoundError):
            # The last holder removes the folder, which may be between any two of these lines.
            folder = private_folder(folder_of(guarded))
            opened.callback(os.close, folder)
            file = _open(guarded, folder)
            opened.callback(os.close, file)
            if not _flock(guarded, file, wait):
                return None
            if _still_there(guarded, folder, file):
                opened.pop_all()
                return Lock(folder, file, guarded)


def private_folder(place: Path) -> int:
    """The descriptor of a folder that this user alone may use, made where there is none.

    Raises:
        LockError: what is there is a link, no folder, or somebody else's.
        FileNotFoundError: somebody has just removed it.
    """
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        os.mkdir(place, 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise _refusal(place, "a folder", error) from None
    try:
        folder = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _refusal(place, "a folder", error) from None
    return _private(place, folder, 0o700)


def sweep(folder: Path) -> None:
    """Remove the locks of what is in `folder` that dead processes have left; what is none stays."""
    for left in [*folder_of(folder / "any").glob("*")]:
        with suppress(LockError):
            if lock := take(folder / left.name.removesuffix(".lock")):
                lock.release()


def _open(guarded: Path, folder: int) -> int:
    name, place = _name(guarded), folder_of(guarded) / _name(guarded)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        file = os.open(name, flags, 0o600, dir_fd=folder)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _refusal(place, "a file", error) from None
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise _refusal(place, "a file")
    return _private(place, file, 0o600)


def _private(place: Path, opened: int, mode: int) -> int:
    """What was opened, closed to others; refused where it is somebody else's."""
    if os.fstat(opened).st_uid != os.geteuid():
        os.close(opened)
        raise _refusal(place, "this user's")
    with suppress(OSError):
        os.fchmod(opened, mode)
    return opened


def _refusal(place: Path, wanted: str, error: OSError | None = None) -> LockError:
    if error is not None and error.errno in OF_DISK:
        return NoRoomForLock(place, error)
    if error is not None and error.errno not in OF_ANOTHER_KIND:
        return LockError(f"Cannot make {place} ({error.strerror}); make its folder writable.")
    return LockError(f"{place} is not {wanted} and was left as it is; remove it and run again.")


def _flock(guarded: Path, file: int, wait: bool) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in NO_LOCKS:
            raise NoLocks(
                f"The file system of {guarded.parent} has no locks; have one run at a time use it."
            ) from None
        raise
    return True


def _still_there(guarded: Path, folder: int, file: int) -> bool:
    """Whether what was locked is still what the next one would open."""
    there = os.stat(_name(guarded), dir_fd=folder, follow_symlinks=False)
    return os.path.samestat(there, os.fstat(file))
