"""The file in which a search remembers its trials, mended where a crash or a disk has torn it.

The rule of this file: what is whole stays, and nothing is lost without a copy.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path


def mend(path: Path) -> str:
    """Cut a journal back to its last whole record, if it is torn or garbled.

    A record is a line of JSON. What a writer that was killed has left of one would run into the
    next and make both unreadable.

    Args:
        path: of the journal; nobody writes to it meanwhile.

    Returns:
        One sentence of what was done; empty where nothing was.
    """
    if not path.exists():
        return ""
    whole = _whole(path)
    if whole == path.stat().st_size:
        return ""
    copy = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
    shutil.copyfile(path, copy)
    with path.open("r+b") as file:
        file.truncate(whole)
        os.fsync(file.fileno())
    return f"{path} was torn: it is cut back to its last whole record; as it was it lies in {copy}"


def _whole(path: Path) -> int:
    """Bytes up to the end of the last record of which all before it are whole."""
    end = 0
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n") or not _is_record(line):
                break
            end += len(line)
    return end


def _is_record(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
