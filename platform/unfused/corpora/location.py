"""Where clips lie: local paths, and whatever else Arrow's file systems reach.

The rule of this file: local and remote look alike from outside, and both are text. Local places
are absolute paths, in which bytes that are not UTF-8 are percent-encoded; others are URIs with
their paths percent-encoded, as `pyarrow.fs.FileSystem.from_uri` wants them.
"""

from __future__ import annotations

import hashlib
import io
import os
import posixpath
import stat
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import BinaryIO, NamedTuple
from urllib.parse import quote, unquote, unquote_to_bytes

from pyarrow import fs

from unfused.corpora.clip import ManifestError
from unfused.trees import NO_TEXT, files_below

STAT_THREADS = 16
STAT_CHUNK = 1024
REMOTE_BUFFER = 2**20
"""Bytes that are fetched at a time of a remote file that is open."""

Listed = tuple[int, str]
"""Bytes and time of change in ns; (-1, "") where there is no such file."""

MISSING: Listed = (-1, "")


class _Uri(NamedTuple):
    root: str
    path: str
    query: str

    @classmethod
    def parse(cls, uri: str) -> _Uri:
        bare, question, query = uri.partition("?")
        scheme, _, rest = bare.partition("://")
        host, _, path = rest.partition("/")
        return cls(f"{scheme}://{host}", unquote(path), question + query)

    def __str__(self) -> str:
        return f"{self.root}/{quote(self.path)}{self.query}"

    def locate(self) -> tuple[fs.FileSystem, str]:
        filesystem, base = _open_root(self.root, self.query)
        return filesystem, f"{base}/{self.path}".rstrip("/")


@lru_cache(maxsize=64)
def _open_root(root: str, query: str) -> tuple[fs.FileSystem, str]:
    try:
        filesystem, base = fs.FileSystem.from_uri(root + query)
    except (OSError, ValueError) as error:
        raise ManifestError(
            f"Cannot open {root!r} ({error}); use a local path, s3://bucket/path or"
            " gs://bucket/path, and check the credentials."
        ) from None
    return filesystem, base.rstrip("/")


def absolute(place: str) -> str:
    """An absolute local path, or a URI without a trailing slash."""
    if place.lower().startswith("file://"):
        place = unquote(place[len("file://") :])
    elif "://" in place:
        uri = _Uri.parse(place)
        return str(uri._replace(path=uri.path.rstrip("/")))
    return spelled(os.path.abspath(os.path.expanduser(place)))


def spelled(path: str) -> str:
    """A local path as text: in names that are not UTF-8, such bytes and `%` are percent-encoded."""
    return "/".join(map(_spelled, path.split("/")))


def _spelled(name: str) -> str:
    if not NO_TEXT.search(name):
        return name
    return NO_TEXT.sub(lambda byte: f"%{ord(byte[0]) - 0xDC00:02X}", name.replace("%", "%25"))


def on_disk(path: str) -> str:
    """A local path as the system has it; names in it that are there as they are stand so.

    Args:
        path: as `spelled` gives it.
    """
    if "%" not in path or os.path.lexists(path):
        return path
    found = ""
    for name in path.split("/"):
        if "%" in name and not os.path.lexists(found + name):
            bytewise = os.fsdecode(unquote_to_bytes(name))
            # What is UTF-8 was percent-encoded by somebody else (see `names`).
            name = bytewise if NO_TEXT.search(bytewise) else name
        found += f"{name}/"
    return found[:-1]


def join(folder: str, name: str) -> str:
    """`name` as seen from `folder`; absolute paths and URIs stand for themselves."""
    if "://" in name:
        return absolute(name)
    if "://" not in folder or os.path.isabs(name):
        return os.path.normpath(os.path.join(folder, name))
    uri = _Uri.parse(folder)
    return str(uri._replace(path=posixpath.normpath(posixpath.join(uri.path, name))))


def parent(place: str) -> str:
    """The folder of a file."""
    return join(place, "..") if "://" in place else os.path.dirname(place)


def locate(place: str) -> tuple[fs.FileSystem, str]:
    """The file system of an absolute place, and the path inside it."""
    if "://" in place:
        return _Uri.parse(place).locate()
    return fs.LocalFileSystem(), place


def kind(place: str) -> fs.FileType:
    """Whether an absolute place is a file, a folder, or nothing."""
    try:
        if "://" not in place:
            return _kind_of(os.stat(on_disk(place)).st_mode)
        filesystem, path = locate(place)
        return filesystem.get_file_info(path).type
    except (FileNotFoundError, NotADirectoryError):
        return fs.FileType.NotFound
    except OSError as error:
        raise _unreachable(place, error) from None


def _kind_of(mode: int) -> fs.FileType:
    if stat.S_ISDIR(mode):
        return fs.FileType.Directory
    return fs.FileType.File if stat.S_ISREG(mode) else fs.FileType.Unknown


def read_bytes(place: str) -> bytes:
    """The content of a file at an absolute place.

    Raises:
        OSError: It is missing (FileNotFoundError) or cannot be read.
    """
    if "://" not in place:
        with open_file(place) as file:
            return file.read()
    filesystem, path = locate(place)
    with filesystem.open_input_stream(path, compression=None) as stream:
        return stream.read()


def open_file(place: str) -> BinaryIO:
    """A file at an absolute place, opened to be read: seekable, and closed by the caller.

    Raises:
        OSError: It is missing (FileNotFoundError) or cannot be read.
    """
    if "://" not in place:
        return open(on_disk(place), "rb")
    filesystem, path = locate(place)
    return io.BufferedReader(filesystem.open_input_file(path), REMOTE_BUFFER)


def sha256(place: str) -> str:
    """Digest of a file's bytes; "" for one that cannot be read."""
    try:
        with open_file(place) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def files_under(folder: str) -> list[tuple[str, Listed]]:
    """Every file below an absolute folder: its path relative to it, sorted, and what is listed."""
    if "://" not in folder:
        return _files_on_disk(folder)
    filesystem, path = locate(folder)
    start = len(path.rstrip("/")) + 1
    found = _select(filesystem, path, folder)
    return sorted((info.path[start:], _listed(info)) for info in found if info.is_file)


def _files_on_disk(folder: str) -> list[tuple[str, Listed]]:
    try:
        names = sorted({*map(spelled, files_below(on_disk(folder))[0])})
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _unreachable(folder, error) from None
    found = zip(names, listed([f"{folder}/{name}" for name in names]), strict=True)
    return [one for one in found if one[1] is not MISSING]


def listed(places: Sequence[str]) -> list[Listed]:
    """Size and time of each absolute place, in order: threads locally, one listing remotely."""
    local = [place for place in places if "://" not in place]
    known = dict(zip(local, _stat_local(local), strict=True))
    known |= _stat_remote(place for place in places if "://" in place)
    return [known[place] for place in places]


def _stat_local(paths: list[str]) -> list[Listed]:
    chunks = [paths[i : i + STAT_CHUNK] for i in range(0, len(paths), STAT_CHUNK)]
    with ThreadPoolExecutor(STAT_THREADS) as pool:
        return [entry for chunk in pool.map(_stat_chunk, chunks) for entry in chunk]


def _stat_chunk(paths: list[str]) -> list[Listed]:
    return [_stat(path) for path in paths]


def _stat(path: str) -> Listed:
    try:
        status = os.stat(on_disk(path))
    except (OSError, ValueError):
        return MISSING
    return status.st_size, str(status.st_mtime_ns)


def _stat_remote(places: Iterable[str]) -> dict[str, Listed]:
    """One listing, for each bucket, of the deepest folder that holds all of its clips."""
    buckets: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for place in places:
        uri = _Uri.parse(place)
        buckets[uri.root, uri.query][uri.path] = place
    known: dict[str, Listed] = {}
    for (root, query), wanted in buckets.items():
        folder = _Uri(root, posixpath.commonpath(map(posixpath.dirname, wanted)), query)
        (filesystem, path), (_, base) = folder.locate(), _open_root(root, query)
        found = {i.path: _listed(i) for i in _select(filesystem, path, str(folder)) if i.is_file}
        for inner, clip in wanted.items():
            known[clip] = found.get(f"{base}/{inner}", MISSING)
    return known


def _select(filesystem: fs.FileSystem, path: str, place: str) -> list[fs.FileInfo]:
    try:
        selector = fs.FileSelector(path, recursive=True, allow_not_found=True)
        return filesystem.get_file_info(selector)
    except OSError as error:
        raise _unreachable(place, error) from None


def _listed(info: fs.FileInfo) -> Listed:
    return info.size, str(info.mtime_ns)


def _unreachable(place: str, error: OSError) -> ManifestError:
    return ManifestError(f"Cannot list {place!r} ({error}); check the address and the credentials.")
