"""Where teachers are found: what a kind's `read` is given beside the rest of the SPEC."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from unfused.config import ConfigError
from unfused.store import Folder, Store, canonical_json
from unfused.teachers.protocol import TeacherFacts

NOT_NUMBERS = frozenset({"name", "source", "license", "file", "assumed", "embedding_dim"})
"""Facts that no number depends on."""
INSTALL = "uv pip install --constraint constraints.txt --editable '.[teachers]'"


@dataclass(frozen=True)
class Place:
    """Where to look.

    Attributes:
        spec: the whole SPEC, which messages name.
        store: of the runs.
        registered: the files of a registered model.
    """

    spec: str
    store: Store | None = None
    registered: Callable[[str], Folder] | None = None

    def file(self, name: str) -> Path:
        """A file that is there.

        Raises:
            ConfigError: it is not.
        """
        path = Path(name).expanduser().absolute()
        if not name or not path.is_file():
            raise ConfigError(f"--teacher {self.spec}: there is no file {str(path)!r}; name one.")
        return path

    def refuse(self, text: str) -> ConfigError:
        """One sentence about this teacher, to be raised."""
        return ConfigError(f"--teacher {self.spec}: {text}")

    def missing(self, package: str) -> ConfigError:
        """A library is not installed."""
        return self.refuse(f"{package} is not installed; install it with {INSTALL}.")


def slug(text: str) -> str:
    """A name of [a-z0-9_-]."""
    return re.sub(r"[^a-z0-9_-]+", "-", text.lower()).strip("-") or "teacher"


def teacher_digest(files: Iterable[Path], facts: TeacherFacts) -> str:
    """SHA-256 of the bytes of files, in order, and of the facts that numbers depend on."""
    total = hashlib.sha256()
    for path in files:
        total.update(_file_digest(path))
    total.update(canonical_json(facts.model_dump(mode="json", exclude=set(NOT_NUMBERS))).encode())
    return total.hexdigest()


def _file_digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


_NEAR: dict[str, TemporaryDirectory] = {}


def near(folder: Folder) -> Folder:
    """The folder, or a copy on this machine's disk, as long as this process lives, of one that is
    elsewhere."""
    if folder.local is not None:
        return folder
    if folder.uri not in _NEAR:
        _NEAR[folder.uri] = TemporaryDirectory(prefix="unfused-teacher-")
        copy = Folder.of(_NEAR[folder.uri].name)
        for info in folder.files():
            name = info.path.removeprefix(f"{folder.path}/")
            copy.write(name, folder.read(name))
    return Folder.of(_NEAR[folder.uri].name)
