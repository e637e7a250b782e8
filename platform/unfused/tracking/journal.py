"""What a run has to tell MLflow, as lines of JSON beside the store, until MLflow has it.

    <store>/tracking/<id>.jsonl     the head (where and what the run is), then an entry a line

Of a store behind s3:// or gs:// they lie in this user's state folder on the machine of the run.

The rule of this file: an entry is in the file before anybody acts on it, and whoever acts on a
journal holds its lock, which ends with the process; so a journal that can be locked is one whose
run is over, however it ended.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from unfused.store import Folder, digest

FOLDER = "tracking"
ENDING = ".jsonl"
FORM = 1
HEAD = {"id": str, "at": float, "uri": str, "experiment": str, "store": str, "subject": dict}
"""What the head must have, and of which type each is."""
UNBORN_SECONDS = 60.0
"""After which a journal without a head is nobody's."""
CHUNK = 1 << 16
"""Bytes read at a time."""


def folder_of(store: Folder) -> Path:
    """Where the journals of a store's runs are; it need not exist."""
    if "://" not in store.uri or store.uri.startswith("file://"):
        return Path(store.path) / FOLDER
    return _state_folder() / "unfused" / FOLDER / digest(store.uri)[:16]


def _state_folder() -> Path:
    if state := os.environ.get("XDG_STATE_HOME"):
        return Path(state)
    try:
        return Path.home() / ".local" / "state"
    except RuntimeError:
        return Path(tempfile.gettempdir(), f"unfused-{os.getuid()}")


class Journal:
    """Entries in the order in which they were told.

    Those that the disk does not take are kept in memory, and are lost with the process.
    """

    def __init__(self, path: Path, file: int | None, head: Mapping[str, Any]) -> None:
        self.path, self.head = path, head
        self.safe = file is not None
        """Whether all of it is on disk."""
        self._file = file
        self._unkept: list[str] = []

    @classmethod
    def begin(cls, folder: Path, head: Mapping[str, Any]) -> Journal:
        """A new journal, locked; it has its name once its head is written."""
        known = {"form": FORM, "id": uuid.uuid4().hex[:12], "at": time.time(), **head}
        path = folder / f"{known['id']}{ENDING}"
        file = None
        with suppress(OSError):
            file = _new(path)
        journal = cls(path, file, known)
        journal.append(known)
        if file is not None and journal.safe:
            with suppress(OSError):
                path.with_suffix(".new").rename(path)
        return journal

    @classmethod
    def take(cls, path: Path) -> Journal | None:
        """A journal that a run has left; None where the run goes on, or it is nobody's or not
        ours."""
        try:
            file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return None
        with suppress(OSError, ValueError, AttributeError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found = os.fstat(file)
            ours = stat.S_ISREG(found.st_mode) and found.st_uid == os.getuid()
            journal = cls(path, file, {})
            if ours and found.st_nlink and (head := Reader(journal).next()):
                journal.head = head
                known = (isinstance(head.get(name), kind) for name, kind in HEAD.items())
                if head.get("form") == FORM and all(known):
                    return journal
        os.close(file)
        return None

    @property
    def id(self) -> str:
        return str(self.head["id"])

    def append(self, entry: Mapping[str, Any]) -> None:
        line = json.dumps(entry, default=_plain)
        self.safe = self.safe and self._file is not None
        self.safe = self.safe and _written(self._file, line.encode() + b"\n")
        if not self.safe:
            self._unkept.append(line)

    def entries(self) -> Iterator[dict[str, Any]]:
        """All that is told so far."""
        reader = Reader(self)
        reader.next()
        while (entry := reader.next()) is not None:
            yield entry

    def remove(self) -> None:
        """All of it is told."""
        for path in (self.path, self.path.with_suffix(".new")):
            path.unlink(missing_ok=True)
        self.release()
        with suppress(OSError):
            self.path.parent.rmdir()

    def release(self) -> None:
        """Let others have it."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)


class Reader:
    """Goes through a journal while it grows."""

    def __init__(self, journal: Journal) -> None:
        self._journal, self._offset, self._rest, self._unkept = journal, 0, b"", 0

    def next(self) -> dict[str, Any] | None:
        """The next entry, the head first; None where there is no whole one."""
        while b"\n" not in self._rest:
            file = self._journal._file
            more = b"" if file is None else os.pread(file, CHUNK, self._offset)
            if not more:
                return self._next_unkept()
            self._offset += len(more)
            self._rest += more
        line, _, rest = self._rest.partition(b"\n")
        try:
            entry = json.loads(line)
        except ValueError:
            # The disk has lost this line; what follows may rest on it.
            return None
        self._rest = rest
        return entry

    def _next_unkept(self) -> dict[str, Any] | None:
        if self._unkept == len(self._journal._unkept):
            return None
        self._unkept += 1
        return json.loads(self._journal._unkept[self._unkept - 1])


def left(folder: Path) -> list[Journal]:
    """The journals of runs that are over, the oldest first, each locked."""
    for unborn in folder.glob("*.new"):
        with suppress(OSError):
            if time.time() - unborn.lstat().st_mtime > UNBORN_SECONDS:
                unborn.unlink()
    taken = [Journal.take(path) for path in folder.glob(f"*{ENDING}")]
    return sorted(filter(None, taken), key=lambda journal: journal.head["at"])


def _new(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    how = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    file = os.open(path.with_suffix(".new"), how, 0o600)
    with suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return file


def _written(file: int, line: bytes) -> bool:
    """Write a line whole or not at all."""
    size = os.fstat(file).st_size
    try:
        if os.write(file, line) == len(line):
            return True
    except OSError:
        pass
    with suppress(OSError):
        os.ftruncate(file, size)
    return False


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays as Python's, anything else as text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)
