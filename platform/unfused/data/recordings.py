"""The bytes of recordings, wherever they lie.

The rule of this file: what cannot be read is a `BadClip` with its reason, like what cannot be
decoded.
"""

from __future__ import annotations

from unfused.audio.decode import BadClip
from unfused.corpora import location


def read_recording(place: str) -> bytes:
    """The content of a file.

    Args:
        place: an absolute path, or a URI.

    Raises:
        BadClip: there is no such file, or it cannot be read.
    """
    try:
        return location.read_bytes(place)
    except FileNotFoundError:
        raise BadClip("missing") from None
    except OSError as error:
        raise BadClip(f"unreadable: {error.strerror or error}") from None
