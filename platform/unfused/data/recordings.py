"""Recordings, wherever they lie.

The rule of this file: what cannot be read is a `BadClip` with its reason, like what cannot be
decoded. Only regular files are opened: reading a pipe or a device may never end.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np

from unfused.audio.decode import BadClip
from unfused.audio.reading import Reading
from unfused.corpora import location

DIGESTED = 2**20
"""Bytes at a time."""
KINDS = {
    stat.S_IFDIR: "it is a folder",
    stat.S_IFIFO: "it is a pipe",
    stat.S_IFSOCK: "it is a socket",
    stat.S_IFCHR: "it is a device",
    stat.S_IFBLK: "it is a device",
}


def read_recording(place: str) -> bytes:
    """The content of a file.

    Args:
        place: an absolute path, or a URI.

    Raises:
        BadClip: there is no such file, it is no regular file, or it cannot be read.
    """
    with _told():
        _check_kind(place)
        return location.read_bytes(place)


@contextmanager
def open_recording(place: str) -> Iterator[BinaryIO]:
    """A file, open and seekable, to be decoded without holding its bytes.

    Args:
        place: an absolute path, or a URI.

    Raises:
        BadClip: as `read_recording`, when it is opened or while it is read.
    """
    with _told():
        _check_kind(place)
        with location.open_file(place) as file:
            yield file


def digest_of(place: str) -> str:
    """SHA-256 of a file, in hexadecimal digits.

    Args:
        place: an absolute path, or a URI.

    Raises:
        BadClip: as `read_recording`.
    """
    digest = hashlib.sha256()
    with open_recording(place) as file:
        while piece := file.read(DIGESTED):
            digest.update(piece)
    return digest.hexdigest()


def has_sound(place: str) -> bool:
    """Whether there is any sound in a file, of which the rest may be damaged: samples that differ.

    Args:
        place: an absolute path, or a URI.
    """
    try:
        with open_recording(place) as file:
            blocks = Reading(file).blocks()
            return any(len(block) and np.ptp(block, axis=0).any() for block in blocks)
    except BadClip:
        return False


def is_empty(place: str) -> bool:
    """Whether a file is of audio, by its header, and has no samples.

    Args:
        place: an absolute path, or a URI.
    """
    try:
        with open_recording(place) as file:
            return not any(len(block) for block in Reading(file).blocks(0))
    except BadClip as bad:
        return bad.reason == "empty"


def _check_kind(place: str) -> None:
    if "\0" in place:
        raise BadClip("missing", "no file has a NUL in its name")
    if "://" in place:
        return
    mode = stat.S_IFMT(os.stat(location.on_disk(place)).st_mode)
    if mode != stat.S_IFREG:
        raise BadClip("not a file", KINDS.get(mode, ""))


@contextmanager
def _told() -> Iterator[None]:
    """Errors of the system as reasons."""
    try:
        yield
    except FileNotFoundError:
        raise BadClip("missing") from None
    except OSError as error:
        raise BadClip(f"unreadable: {error.strerror or error}") from None
