"""Input-addressed artifacts in a local folder or behind s3:// and gs://.

The rule of this room: the manifest is the commit. Files are made in a temporary place and an
artifact exists once its `manifest.json` does; a crash leaves rubbish, never half an artifact.

    <store>/<stage>/<key>/manifest.json, ...   a finished artifact
    <store>/work/<stage>-<key>-<random>/       one being made
    <store>/checkpoints/<stage>/<key>/         what an interrupted stage resumes from
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from pyarrow import fs
from pydantic import BaseModel, ConfigDict


class StoreError(ValueError):
    """The store or something in it cannot be used; the message names the remedy."""


def canonical_json(value: Any) -> str:
    """One spelling for one value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any) -> str:
    """Hexadecimal SHA-256 of a JSON value."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def artifact_key(stage: str, version: int, config: Mapping, inputs: Mapping[str, str]) -> str:
    """Identity of what `stage` makes of these inputs: 16 hexadecimal digits."""
    parts = {"stage": stage, "version": version, "config": config, "inputs": dict(inputs)}
    return digest(parts)[:16]


@dataclass(frozen=True)
class Folder:
    """A folder in any file system that Arrow reads; plain data, so it travels between processes."""

    uri: str

    @classmethod
    def of(cls, location: str | Path) -> Folder:
        """A folder from a URI, or from a path relative to the working directory."""
        text = str(location)
        return cls(text.rstrip("/") if "://" in text else str(Path(text).expanduser().resolve()))

    @cached_property
    def _where(self) -> tuple[fs.FileSystem, str]:
        try:
            return fs.FileSystem.from_uri(self.uri)
        except (OSError, ValueError) as error:
            raise StoreError(
                f"Cannot open {self.uri!r} ({error}); use a folder, s3://bucket/path"
                " or gs://bucket/path."
            ) from None

    def __getstate__(self) -> dict[str, str]:
        return {"uri": self.uri}

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

    def __truediv__(self, name: str) -> Folder:
        return Folder(f"{self.uri}/{name}")

    def exists(self, name: str) -> bool:
        return self.filesystem.get_file_info(f"{self.path}/{name}").type != fs.FileType.NotFound

    def read(self, name: str) -> bytes:
        with self.filesystem.open_input_file(f"{self.path}/{name}") as file:
            return file.read()

    def read_json(self, name: str) -> Any:
        return json.loads(self.read(name))

    def write(self, name: str, data: bytes) -> None:
        """Write a file whole or not at all; its name may have folders before it."""
        target = f"{self.path}/{name}"
        self.filesystem.create_dir(target.rpartition("/")[0], recursive=True)
        if self.local is None:
            with self.filesystem.open_output_stream(target) as file:
                file.write(data)
            return
        partial = f"{target}.{uuid.uuid4().hex[:8]}.partial"
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, target)

    def write_json(self, name: str, value: Any) -> None:
        self.write(name, (json.dumps(value, indent=2, sort_keys=True) + "\n").encode())

    def files(self) -> list[fs.FileInfo]:
        """All files below, sorted by path."""
        selector = fs.FileSelector(self.path, recursive=True, allow_not_found=True)
        infos = self.filesystem.get_file_info(selector)
        return sorted((i for i in infos if i.is_file), key=lambda info: info.path)

    def delete(self) -> None:
        """Remove the folder and all below it, if it is there."""
        if self.filesystem.get_file_info(self.path).type != fs.FileType.NotFound:
            self.filesystem.delete_dir(self.path)


def npy(array: np.ndarray) -> bytes:
    """An array in NumPy's own format, without pickle."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def read_npy(folder: Folder, name: str) -> np.ndarray:
    """What `npy` wrote."""
    return np.load(io.BytesIO(folder.read(name)), allow_pickle=False)


class Facts(BaseModel):
    """What an artifact says of itself: a typed record, of the form of its stage's version."""

    model_config = ConfigDict(frozen=True, extra="forbid")


F = TypeVar("F", bound=Facts)


@dataclass(frozen=True)
class Artifact(Generic[F]):
    """A committed result, or one part of it (a split): where it is and what it says of itself."""

    folder: Folder
    identity: str
    """The key, or for a part of an ingest artifact the digest of its content."""
    facts: F


@dataclass(frozen=True)
class Store:
    """Artifacts by stage and key."""

    root: Folder

    @classmethod
    def at(cls, location: str) -> Store:
        return cls(Folder.of(location))

    def folder(self, stage: str, key: str) -> Folder:
        return self.root / stage / key

    def checkpoints(self, stage: str, key: str) -> Folder:
        return self.root / "checkpoints" / stage / key

    def manifest(self, stage: str, key: str) -> dict[str, Any] | None:
        """The manifest of a finished artifact, or None."""
        try:
            return self.folder(stage, key).read_json("manifest.json")
        except FileNotFoundError:
            return None
        except ValueError:
            where = self.folder(stage, key).uri
            raise StoreError(
                f"{where}/manifest.json is damaged; delete that folder and run again."
            ) from None

    def begin(self, stage: str, key: str) -> Folder:
        """A place of one's own to work in."""
        return self.root / "work" / f"{stage}-{key}-{uuid.uuid4().hex[:8]}"

    def commit(self, stage: str, key: str, work: Folder, manifest: Mapping[str, Any]) -> None:
        """Make `work` the artifact of `key`; if another builder was first, its result stays."""
        final = self.folder(stage, key)
        root = len(work.path) + 1
        files = [{"name": info.path[root:], "size": info.size} for info in work.files()]
        record = {**manifest, "files": files}
        if work.local is not None:
            self._rename(work, final, record)
        elif self.manifest(stage, key) is None:
            for file in files:
                self._copy(work, final, file["name"])
            final.write_json("manifest.json", record)
        work.delete()

    @staticmethod
    def _rename(work: Folder, final: Folder, record: Mapping[str, Any]) -> None:
        work.write_json("manifest.json", record)
        assert work.local is not None and final.local is not None
        final.local.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.rename(work.local, final.local)
        except OSError:
            if not final.exists("manifest.json"):
                raise

    @staticmethod
    def _copy(work: Folder, final: Folder, name: str) -> None:
        work.filesystem.copy_file(f"{work.path}/{name}", f"{final.path}/{name}")
