"""Every file below a folder on this machine's disk."""

from __future__ import annotations

import os
import posixpath
import re
from collections import deque
from collections.abc import Callable
from operator import attrgetter

NO_TEXT = re.compile("[\udc80-\udcff]")
"""As which Python has the bytes of a name that are not UTF-8, each added to 0xDC00."""


def files_below(
    root: str, is_file: Callable[[os.DirEntry], bool] = lambda folder: False
) -> tuple[list[str], int]:
    """The files below a folder, through links to folders as well, each folder once.

    What somebody else removes meanwhile, below the folder itself, is not there.

    Args:
        root: the folder.
        is_file: whether a folder is to be taken for a file.

    Returns:
        Their paths below it, and how many links lead to folders that were there already.

    Raises:
        OSError: a folder cannot be listed; it has the folder's name.
    """
    known: set[tuple[int, int]] = set()
    again, found = 0, []
    # Folders before links to them, wherever both lie, so that a file has its own path.
    waiting, linked = [""], deque[str]()
    while waiting or linked:
        folder = waiting.pop() if waiting else linked.popleft()
        try:
            status = os.stat(os.path.join(root, folder))
            entries = sorted(os.scandir(os.path.join(root, folder)), key=attrgetter("name"))
        except FileNotFoundError:
            if not folder:
                raise
            continue
        if (status.st_dev, status.st_ino) in known:
            again += 1
            continue
        known.add((status.st_dev, status.st_ino))
        below = []
        for entry in entries:
            name = posixpath.join(folder, entry.name)
            if _is_folder(entry) and not is_file(entry):
                (linked if entry.is_symlink() else below).append(name)
            else:
                found.append(name)
        waiting += reversed(below)
    return found, again


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        # A link that leads to itself.
        return False
