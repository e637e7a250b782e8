"""A folder in any file system that Arrow reads.

The rule of this file: a small file is written whole or not at all, and what is closed is on disk.
"""

from __future__ import annotations

import errno
import io
import json
import os
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from pyarrow import fs

from unfused.config import ConfigError
from unfused.remote import patient
from unfused.trees import NO_TEXT, files_below

AGAIN_SECONDS = (0.1, 0.3, 1.0)
"""Pauses before what makes no sense is read again."""


class StoreError(ConfigError):
    """The store or something in it cannot be used; the message names the remedy and holds no
    secret."""


class StoreFailed(RuntimeError):
    """A place that a run uses has failed in the middle of it; the message names the remedy."""


def check_inside(name: str) -> str:
    """A name that leads to no other folder: what is read may be named by what somebody has sent.

    Raises:
        StoreError: it does.
    """
    if name.startswith("/") or ".." in name.split("/"):
        raise StoreError(f"{name!r} leads out of its folder; take an artifact that is whole.")
    return name


def _parts(uri: str) -> tuple[str, str, str]:
    """A place, and after a mark the settings that it is opened with; a path has none."""
    return uri.partition("?" if "://" in uri else "\0")


@dataclass(frozen=True)
class Folder:
    """A folder in any file system that Arrow reads; plain data, so it travels between processes."""

    uri: str

    @classmethod
    def of(cls, location: str | Path) -> Folder:
        """A folder from a URI, or from a path relative to the working directory.

        Raises:
            StoreError: the path is not UTF-8, which Arrow's file systems want, or a URI has none.
        """
        text = str(location)
        if "://" in text and not text.partition("://")[2].strip("/"):
            raise StoreError(f"{text} names no place; write s3://bucket/path or gs://bucket/path.")
        place = text.rstrip("/") if "://" in text else str(Path(text).expanduser().resolve())
        if place.encode(errors="replace").decode() != place:
            raise StoreError(f"A name in {place!r} is not UTF-8 text; rename that folder.")
        return cls(place)

    @cached_property
    def _where(self) -> tuple[fs.FileSystem, str]:
        try:
            found, path = fs.FileSystem.from_uri(self.uri)
            return patient(found, self.uri), path
        except (OSError, ValueError) as error:
            raise StoreError(
                f"Cannot open {self.uri!r} ({error}); use a folder, s3://bucket/path"
                " or gs://bucket/path."
            ) from None

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_where"}

    @property
    def filesystem(self) -> fs.FileSystem:
        return self._where[0]

    @property
    def path(self) -> str:
        """The path inside `filesystem`."""
        return self._where[1]

    @property
    def local(self) -> Path | None:
        """The folder on this machine's disk, if it is there."""
        return Path(self.path) if self.filesystem.type_name == "local" else None

    @property
    def shown(self) -> str:
        """The URI without keys and settings."""
        kind, remote, _ = self.uri.partition("://")
        return f"{kind}://{self.path}" if remote else self.uri

    def __truediv__(self, name: str) -> Folder:
        return Folder(self.below(name))

    def below(self, name: str) -> str:
        """The URI of what is in the folder."""
        base, mark, settings = _parts(self.uri)
        return f"{base}/{check_inside(name)}{mark}{settings}"

    def holds(self, uri: str) -> bool:
        """Whether a folder is this one, or in it."""
        return f"{_parts(uri)[0]}/".startswith(f"{_parts(self.uri)[0]}/")

    def exists(self, name: str) -> bool:
        return self.filesystem.get_file_info(f"{self.path}/{name}").type != fs.FileType.NotFound

    def read(self, name: str) -> bytes:
        with self.open(name) as file:
            return file.read()

    def read_json(self, name: str) -> Any:
        """What a file says. On an object store one is read again where it makes no sense: it is
        asked for its size and then for so many bytes, and may have been written anew in between."""
        for pause in AGAIN_SECONDS if self.local is None else ():
            with suppress(ValueError):
                return json.loads(self.read(name))
            time.sleep(pause)
        return json.loads(self.read(name))

    def open(self, name: str) -> BinaryIO:
        """A file to be read here and there.

        Raises:
            OSError: it cannot be; FileNotFoundError, IsADirectoryError or another one says why.
        """
        place = f"{self.path}/{check_inside(name)}"
        try:
            return self.filesystem.open_input_file(place)
        except OSError:
            if self.local is not None and os.path.isdir(place):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), place) from None
            raise

    def create(self, name: str) -> BinaryIO:
        """A file to be written piece by piece, which is on disk once it is closed; its name may
        have folders before it."""
        target = f"{self.path}/{name}"
        self.filesystem.create_dir(target.rpartition("/")[0], recursive=True)
        if self.local is None:
            return self.filesystem.open_output_stream(target)
        return _Synced(target)

    def write(self, name: str, data: bytes) -> None:
        """Write a file whole or not at all; its name may have folders before it."""
        if self.local is None:
            with self.create(name) as file:
                file.write(data)
            return
        partial = f"{name}.{uuid.uuid4().hex[:8]}.partial"
        try:
            with self.create(partial) as file:
                file.write(data)
            os.replace(f"{self.path}/{partial}", f"{self.path}/{name}")
        except BaseException:
            with suppress(OSError):
                os.unlink(f"{self.path}/{partial}")
            raise

    def write_json(self, name: str, value: Any) -> None:
        self.write(name, (json.dumps(value, indent=2, sort_keys=True) + "\n").encode())

    def files(self) -> list[fs.FileInfo]:
        """All files below, sorted by path.

        On disk each folder counts once, however many links lead to it, and a name that is not
        UTF-8 is none of ours.
        """
        if self.local is not None:
            return self._local_files()
        selector = fs.FileSelector(self.path, recursive=True, allow_not_found=True)
        infos = self.filesystem.get_file_info(selector)
        return sorted((i for i in infos if i.is_file), key=lambda info: info.path)

    def _local_files(self) -> list[fs.FileInfo]:
        try:
            names, _ = files_below(self.path)
        except FileNotFoundError:
            return []
        paths = [f"{self.path}/{name}" for name in names if not NO_TEXT.search(name)]
        infos = self.filesystem.get_file_info(paths)
        return sorted((i for i in infos if i.is_file), key=lambda info: info.path)

    def sizes(self) -> dict[str, int]:
        """Bytes of all files below, by name with the folders before it, sorted."""
        return {info.path.removeprefix(f"{self.path}/"): info.size for info in self.files()}

    def names(self) -> list[str]:
        """All files below, each with the folders before it, sorted."""
        return [*self.sizes()]

    def delete(self) -> None:
        """Remove the folder and all below it, or the file of its name, if there is one."""
        # Somebody else may be faster.
        with suppress(FileNotFoundError):
            match self.filesystem.get_file_info(self.path).type:
                case fs.FileType.Directory:
                    self.filesystem.delete_dir(self.path)
                case fs.FileType.File:
                    self.filesystem.delete_file(self.path)


class _Synced(io.FileIO):
    """A new local file that is on disk once it is closed."""

    def __init__(self, path: str) -> None:
        super().__init__(path, "wb")

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        total = len(left)
        while left:
            left = left[super().write(left) :]
        return total

    def close(self) -> None:
        if not self.closed:
            try:
                os.fsync(self.fileno())
            finally:
                super().close()

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is None:
            self.close()
        else:
            super().close()


def npy(array: np.ndarray) -> bytes:
    """An array in NumPy's own format, without pickle."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def read_npy(folder: Folder, name: str) -> np.ndarray:
    """What `npy` wrote."""
    return np.load(io.BytesIO(folder.read(name)), allow_pickle=False)
