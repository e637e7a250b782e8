"""Places that a person names: where artifacts are kept, and files that are to be written.

The rule of this file: it looks and writes nothing; what could not be used at the end is refused at
the beginning.
"""

from __future__ import annotations

import os
from pathlib import Path

from unfused.config import ConfigError
from unfused.store import Store, StoreError

OTHER_STORE = "name a folder, s3://bucket/path or gs://bucket/path."
SHOWN = 80
"""Characters of a wrong name that are said again."""


def usable(location: str) -> Store:
    """A store that is there or could be made.

    Raises:
        ConfigError: it is no place that files can be kept in.
    """
    store, nearest = _understood(location)
    if nearest and not (nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)):
        what = "cannot be written in" if nearest.is_dir() else "is a file"
        raise ConfigError(f"--store {_said(location)}: {nearest} {what}; name another folder.")
    return store


def there(location: str) -> Store:
    """A store to look into; one on a disk is there.

    Raises:
        ConfigError: it is not, or it is no place that files can be kept in.
    """
    store, nearest = _understood(location)
    if (local := store.root.local) and not (nearest == local and local.is_dir()):
        raise ConfigError(f"--store {_said(location)}: there is no folder {local}; name another.")
    return store


def _understood(location: str) -> tuple[Store, Path | None]:
    """A store by its name, and of one on a disk the part of its path that is there.

    Raises:
        ConfigError: it is no place that files can be kept in.
    """
    said = _said(location)
    if not location.strip():
        raise ConfigError(f"--store is empty; {OTHER_STORE}")
    try:
        store = Store.at(location)
        local = store.root.local
        above = (local, *local.parents) if local else ()
        nearest = next((path for path in above if path.exists()), None)
    except (OSError, RuntimeError, StoreError) as error:
        reason = str(error).partition("; ")[0].rstrip(".").replace(location, said)
        raise ConfigError(f"--store {said}: {reason}; {OTHER_STORE}") from None
    if store.root.filesystem.type_name == "mock" or not store.root.path.strip("/"):
        raise ConfigError(f"--store {said} names no place to keep anything in; {OTHER_STORE}")
    return store, nearest


def _said(name: str) -> str:
    return name if len(name) <= SHOWN else f"{name[:SHOWN]}..."


def writable(option: str, name: str) -> Path:
    """A file that could be written.

    Args:
        option: that names it.
        name: as it was typed.

    Raises:
        ConfigError: its folder is not there, or it is one itself, or may not be written.
    """
    path = Path(os.path.expanduser(name))
    try:
        if not name.strip() or path.is_dir():
            raise ConfigError(f"{option} {name or '(empty)'} is no file; name one.")
        if not path.resolve().parent.is_dir():
            raise ConfigError(f"{option} {name}: there is no folder {path.parent}; make it.")
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise ConfigError(f"{option} {name} cannot be written; name another file.")
    except OSError as error:
        raise ConfigError(f"{option}: {error.strerror}; name another file.") from None
    return path


def check_named(places: dict[str, str | None]) -> None:
    """Refuse an option that was given as nothing, as a variable of a shell that is not set.

    Raises:
        ConfigError: of the first one.
    """
    for option, text in places.items():
        if text is not None and not text.strip():
            raise ConfigError(f"{option} is empty; say what it is, or leave it out.")
