"""The files of an artifact, and what each must be.

The rule of this file: the digest of a file is that of the bytes that were meant to be written, and
is worked out as they are; what is read whole is held against it. What is read in pieces, a Parquet
file, has checksums of its own in every page.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from unfused.remote import fault_of
from unfused.store.folder import Folder, StoreError

MANIFEST = "manifest.json"
AT = "at"
"""Of a manifest: the folder beside it that the files are in; without one they are beside it."""
NOTE = re.compile(r"(.+)\.sha256-([0-9a-f]{64})")
"""The name of an empty file beside one that is being made: the digest of it."""
NO_MANIFEST = (ValueError, TypeError, AttributeError, KeyError)
"""What reading says of a manifest that is none."""
BLOCK_BYTES = 2**20


class Damaged(StoreError):
    """A file of an artifact is not what was written."""

    def __init__(self, folder: str, file: str, what: str) -> None:
        super().__init__(
            f"{folder} is damaged ({file}: {what}); delete that folder and run again, or copy it"
            " again from where it came."
        )
        self.folder, self.file, self.what = folder, file, what

    def __reduce__(self) -> Any:
        return Damaged, (self.folder, self.file, self.what)


@dataclass(frozen=True)
class FileSum:
    """A file of an artifact.

    Attributes:
        name: with the folders before it.
        size: bytes.
        sha256: hexadecimal; empty where it is not known, of artifacts of before it was noted.
    """

    name: str
    size: int
    sha256: str = ""


@dataclass(frozen=True)
class Work(Folder):
    """A folder in which an artifact is made: every file leaves a note of its digest beside it."""

    def __truediv__(self, name: str) -> Work:
        return Work(self.below(name))

    def create(self, name: str) -> BinaryIO:
        return _Noted(self, name, super().create(name))  # type: ignore[return-value]

    def write(self, name: str, data: bytes) -> None:
        with self.create(name) as file:
            file.write(data)

    def sums(self) -> list[FileSum]:
        """All files, without the notes, which are taken away."""
        made, notes = self.sizes(), dict[str, list[str]]()
        for found in [*filter(None, map(NOTE.fullmatch, made))]:
            notes.setdefault(found[1], []).append(found[2])
            self.filesystem.delete_file(f"{self.path}/{found[0]}")
            del made[found[0]]
        known = made.items()
        return [FileSum(name, size, self._sum(name, notes.get(name, []))) for name, size in known]

    def _sum(self, name: str, noted: list[str]) -> str:
        """The digest that was noted; of a file without just one note, that of what is there."""
        return noted[0] if len(noted) == 1 else file_digest(self, name)


class _Noted:
    """A file that is being written, and the digest of it."""

    def __init__(self, folder: Work, name: str, file: BinaryIO) -> None:
        self._folder, self._name, self._file = folder, name, file
        self._digest = hashlib.sha256()

    @property
    def closed(self) -> bool:
        return self._file.closed

    def write(self, data: Any) -> int:
        self._digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        if not self._file.closed:
            self._file.close()
            note = f"{self._name}.sha256-{self._digest.hexdigest()}"
            Folder.create(self._folder, note).close()

    def __enter__(self) -> _Noted:
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is None:
            self.close()
        else:
            self._file.close()


@dataclass(frozen=True)
class Kept(Folder):
    """A folder of a finished artifact, or one in it: its files are known.

    Attributes:
        sums: by name.
    """

    sums: Mapping[str, FileSum] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of_manifest(cls, folder: Folder, manifest: Mapping[str, Any]) -> Kept:
        """The files of an artifact, by the manifest that lies in `folder`."""
        files = [FileSum(**file) for file in manifest.get("files", [])]
        where = (folder / manifest[AT]).uri if AT in manifest else folder.uri
        return cls(where, {file.name: file for file in files})

    @classmethod
    def at(cls, folder: Folder) -> Folder:
        """The files of an artifact, by the manifest in its folder; the folder itself where it has
        none."""
        try:
            return cls.of_manifest(folder, folder.read_json(MANIFEST))
        except (FileNotFoundError, NotADirectoryError):
            return folder
        except NO_MANIFEST:
            raise Damaged(folder.uri, MANIFEST, "no manifest") from None

    def __truediv__(self, name: str) -> Kept:
        start = f"{name}/"
        inside = {
            key.removeprefix(start): FileSum(key.removeprefix(start), one.size, one.sha256)
            for key, one in self.sums.items()
            if key.startswith(start)
        }
        return Kept(self.below(name), inside)

    def read(self, name: str) -> bytes:
        known = self.sums.get(name)
        try:
            data = super().read(name)
        except FileNotFoundError:
            if known is None:
                raise
            raise self.damaged(name, "it is not there") from None
        except IsADirectoryError:
            if known is None:
                raise
            raise self.damaged(name, "a folder is in its place") from None
        if known and len(data) != known.size:
            raise self.damaged(name, f"{len(data)} bytes of {known.size}")
        if known and known.sha256 and hashlib.sha256(data).hexdigest() != known.sha256:
            raise self.damaged(name, "other bytes than were written")
        return data

    def names(self) -> list[str]:
        return sorted(self.sums) or super().names()

    def damaged(self, name: str, what: str) -> Damaged:
        """To be raised."""
        return Damaged(self.uri, name, what)

    def wrong_sizes(self) -> Iterator[Damaged]:
        """What is told by looking at the folder alone."""
        there = self.sizes()
        for name, known in self.sums.items():
            if name not in there:
                yield self.damaged(name, "it is not there")
            elif there[name] != known.size:
                yield self.damaged(name, f"{there[name]} bytes of {known.size}")

    def wrong(self) -> Iterator[Damaged]:
        """What is told by reading every file.

        Raises:
            OSError: the place fails, which says nothing of the files.
        """
        sizes = {one.file: one for one in self.wrong_sizes()}
        yield from sizes.values()
        for name, known in self.sums.items():
            if name in sizes or not known.sha256:
                continue
            if file_digest(self, name) != known.sha256:
                yield self.damaged(name, "other bytes than were written")


def file_digest(folder: Folder, name: str) -> str:
    """Hexadecimal SHA-256 of a file, read a piece at a time."""
    total = hashlib.sha256()
    with folder.open(name) as file:
        while block := file.read(BLOCK_BYTES):
            total.update(block)
    return total.hexdigest()


def create_table(sink: BinaryIO, schema: pa.Schema, **options: Any) -> pq.ParquetWriter:
    """A Parquet file with a checksum in every page."""
    return pq.ParquetWriter(sink, schema, write_page_checksum=True, **options)


@contextmanager
def opened_table(folder: Folder, name: str) -> Iterator[pq.ParquetFile]:
    """A Parquet file whose pages are held against their checksums as they are read.

    Raises:
        Damaged: it is not there or not what was written.
    """
    try:
        with (
            folder.open(name) as source,
            pq.ParquetFile(source, page_checksum_verification=True) as file,
        ):
            yield file
    except FileNotFoundError:
        raise Damaged(folder.uri, name, "it is not there") from None
    except (OSError, pa.ArrowException) as error:
        if fault_of(error):
            # The place fails, which says nothing of the file.
            raise
        raise Damaged(folder.uri, name, str(error).partition("\n")[0]) from None


def write_table(folder: Folder, name: str, table: pa.Table, **options: Any) -> None:
    """Write a table as one Parquet file with a checksum in every page."""
    with folder.create(name) as sink, create_table(sink, table.schema, **options) as writer:
        writer.write_table(table)


def read_table(folder: Folder, name: str, columns: list[str] | None = None) -> pa.Table:
    """What `write_table` wrote."""
    with opened_table(folder, name) as file:
        return file.read(columns=columns)
