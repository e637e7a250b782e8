"""Artifacts by stage and key.

The rule of this file: a builder writes into a place of its own, and what is there counts when its
manifest is; what is damaged counts as not there, is set aside, and is never deleted.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pyarrow import fs
from pydantic import BaseModel, ConfigDict

from unfused.config import ConfigError
from unfused.locks import NoRoomForLock
from unfused.remote import CLOSED, NO_BUCKET, NO_FOLDER, Fault, fault_of, path_of
from unfused.store.files import AT, MANIFEST, NO_MANIFEST, Damaged, Kept, Work
from unfused.store.folder import Folder, StoreError, StoreFailed
from unfused.store.keys import KEY

NOT_STAGES = ("work", "checkpoints", "damaged", "runs", "demo", "searches", "tracking")
"""Folders of a store that hold no artifacts."""
BEGUN = re.compile(r"(?P<lease>(?P<stage>.+)-(?P<key>[0-9a-f]{16}))-(?P<builder>[0-9a-f]{8})")
"""The name of what is being made (see `Store.begin`)."""
COPIES = 8
"""Files of an object store that are copied at a time."""


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

    def kept(self, stage: str, key: str) -> Folder:
        """The files of a finished artifact.

        Raises:
            Damaged: its manifest is none.
        """
        return Kept.at(self.folder(stage, key))

    def check_readable(self) -> None:
        """Look whether the store is there, or can be made; writes nothing.

        Raises:
            StoreError: it does not answer, lets nobody in, or its bucket is missing.
        """
        bucket = self.root.path if self.root.local else self.root.path.partition("/")[0]
        try:
            found = self.root.filesystem.get_file_info(bucket)
        except OSError as error:
            raise self._unusable("read", error) from None
        if not self.root.local and found.type == fs.FileType.NotFound:
            raise self._unusable("read", FileNotFoundError(NO_BUCKET))

    def check_writable(self) -> None:
        """Write a small file and delete it again.

        Raises:
            StoreError: that is not possible.
        """
        name = f"{uuid.uuid4().hex[:8]}.probe"
        try:
            (self.root / "work").write(name, b"\n")
            self.root.filesystem.delete_file(f"{self.root.path}/work/{name}")
        except OSError as error:
            raise self._unusable("write to", error) from None

    def _unusable(self, doing: str, error: OSError) -> StoreError:
        fault = fault_of(error) or Fault(str(error), "name another with --store")
        why = f"{fault.reason}; {fault.remedy}"
        return StoreError(f"Cannot {doing} the store {self.root.shown}: {why}.")

    def failure(self, error: BaseException) -> BaseException:
        """One sentence where an error in the middle of a run is a place's; else the error."""
        if isinstance(error, NoRoomForLock):
            error = error.error
        fault, path = fault_of(error), path_of(error)
        if isinstance(error, ConfigError) or fault is None:
            return error
        within = not path or self.root.local is None or path.startswith(self.root.path)
        # What is true of one file alone need not be so of the store.
        named = path and (fault in (CLOSED, NO_FOLDER) or not within)
        place = path if named else f"the store {self.root.shown}"
        return StoreFailed(f"Cannot use {place} any more: {fault.reason}; {fault.remedy}.")

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Turn an error of a place, meanwhile, into one sentence.

        Raises:
            StoreFailed: see `failure`.
        """
        try:
            yield
        except Exception as error:
            told = self.failure(error)
            if told is error:
                raise
            raise told from error

    def checkpoints(self, stage: str, key: str) -> Folder:
        return self.root / "checkpoints" / stage / key

    def manifest(self, stage: str, key: str) -> dict[str, Any] | None:
        """The manifest of a finished artifact whose files are all there, or None.

        Raises:
            Damaged: a file is missing or of another size, or the manifest is none. On an object
                store a folder without one is no artifact yet: its files may just be copied there.
        """
        folder = self.folder(stage, key)
        began = folder.local is not None and folder.local.exists()
        try:
            found = folder.read_json(MANIFEST)
            wrong = next(Kept.of_manifest(folder, found).wrong_sizes(), None)
        except (FileNotFoundError, NotADirectoryError):
            if began:
                raise Damaged(folder.uri, MANIFEST, "it is not there") from None
            return None
        except NO_MANIFEST:
            raise Damaged(folder.uri, MANIFEST, "no manifest") from None
        if wrong:
            raise wrong
        return found

    def check(self, stage: str, key: str) -> list[Damaged]:
        """Read every file of an artifact: what is wrong with it, a sentence for each file.

        On an object store nothing is wrong with one that a builder is just copying there.

        Raises:
            OSError: the store fails, which says nothing of its files.
        """
        folder = self.folder(stage, key)
        try:
            return [*Kept.of_manifest(folder, folder.read_json(MANIFEST)).wrong()]
        except (FileNotFoundError, NotADirectoryError):
            if folder.local is None and self._is_made(stage, key):
                return []
            return [Damaged(folder.uri, MANIFEST, "it is not there")]
        except NO_MANIFEST:
            return [Damaged(folder.uri, MANIFEST, "no manifest")]

    def artifacts(self) -> Iterator[tuple[str, str]]:
        """Stage and key of all that is there, sorted. What else lies in the folder is somebody's
        own."""
        for stage in self._folders(self.root):
            if stage not in NOT_STAGES:
                yield from ((stage, key) for key in self.keys(stage) if KEY.fullmatch(key))

    def keys(self, stage: str) -> list[str]:
        """What is there of a stage, sorted; it may be damaged, or just being copied."""
        return self._folders(self.root / stage)

    @staticmethod
    def _folders(folder: Folder) -> list[str]:
        selector = fs.FileSelector(folder.path, allow_not_found=True)
        infos = folder.filesystem.get_file_info(selector)
        return sorted(one.base_name for one in infos if one.type == fs.FileType.Directory)

    def outlived(self) -> Iterator[tuple[str, str]]:
        """Stage and key of what has checkpoints and is finished all the same."""
        kept = self.root / "checkpoints"
        for stage in self._folders(kept):
            for key in self._folders(kept / stage):
                if self._sound(stage, key) is not None:
                    yield stage, key

    def set_aside(self, stage: str, key: str) -> Folder | None:
        """Move what is at an artifact's place out of the way; where to, if there is anything."""
        place = self.folder(stage, key)
        if place.filesystem.get_file_info(place.path).type == fs.FileType.NotFound:
            return None
        aside = self.root / "damaged" / f"{stage}-{key}-{uuid.uuid4().hex[:8]}"
        if place.local is not None and aside.local is not None:
            aside.local.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):
                os.rename(place.local, aside.local)
        else:
            _copy(place, aside, place.names())
            place.delete()
        return aside

    def begin(self, stage: str, key: str) -> Work:
        """A place of one's own to work in, of a name that `BEGUN` takes apart."""
        return Work((self.root / "work" / f"{stage}-{key}-{uuid.uuid4().hex[:8]}").uri)

    def commit(
        self, stage: str, key: str, work: Work, manifest: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Make `work` the artifact of `key`; if another builder was first, its result stays.

        What is in its place and is no artifact is set aside. On a disk, all files and folders are
        there before the manifest is, and the artifact appears at once. On an object store every
        builder's files lie in a folder of its own, and the manifest, which is written last, names
        that: of two builders on two machines nothing mixes.

        Returns:
            The manifest of what is there now.
        """
        final = self.folder(stage, key)
        record = {**manifest, "files": [asdict(one) for one in work.sums()]}
        if work.local is not None:
            Folder(work.uri).write_json(MANIFEST, record)
            self._rename(stage, key, work, final)
        elif self._sound(stage, key) is None:
            self._upload(stage, key, work, record)
        work.delete()
        # As everybody will read it: in the order of its keys, too.
        return final.read_json(MANIFEST)

    def forget(self, begun: str) -> None:
        """Remove what a dead builder was making, and what of it it had copied beside the artifact.

        Args:
            begun: the name in `work/`.
        """
        if found := BEGUN.fullmatch(begun):
            place, builder = self.folder(found["stage"], found["key"]), found["builder"]
            if not self._made_by(place, builder):
                (place / builder).delete()
        (self.root / "work" / begun).delete()

    def _is_made(self, stage: str, key: str) -> bool:
        """Whether somebody has begun to make an artifact, and has not ended."""
        begun = self._folders(self.root / "work")
        return any(name.startswith(f"{stage}-{key}-") for name in begun)

    @staticmethod
    def _made_by(place: Folder, builder: str) -> bool:
        """Whether a builder's files are the artifact; true where its manifest does not tell."""
        try:
            return place.read_json(MANIFEST).get(AT) == builder
        except FileNotFoundError:
            return False
        except NO_MANIFEST:
            return True

    def _sound(self, stage: str, key: str) -> dict[str, Any] | None:
        try:
            return self.manifest(stage, key)
        except Damaged:
            return None

    def _rename(self, stage: str, key: str, work: Folder, final: Folder) -> None:
        source, target = Path(work.path), Path(final.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        for folder in (*filter(Path.is_dir, source.rglob("*")), source):
            _sync(folder)
        while True:
            try:
                os.rename(source, target)
            except OSError:
                if self._sound(stage, key) is not None:
                    return
                if self.set_aside(stage, key) is None:
                    raise
            else:
                _sync(target.parent)
                return

    def _upload(self, stage: str, key: str, work: Folder, record: dict[str, Any]) -> None:
        place = self.folder(stage, key)
        # Looked at here and now: another builder may have ended since.
        try:
            self.manifest(stage, key)
        except Damaged:
            self.set_aside(stage, key)
        own = work.path.rpartition("-")[2]
        _copy(work, place / own, [file["name"] for file in record["files"]])
        (place / own).write_json(MANIFEST, record)
        if self._sound(stage, key) is None:
            place.write_json(MANIFEST, record | {AT: own})
        if place.read_json(MANIFEST).get(AT) != own:
            (place / own).delete()


def _sync(folder: Path) -> None:
    """Have the names in a local folder on disk."""
    where = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(where)
    finally:
        os.close(where)


def _copy(source: Folder, target: Folder, names: list[str]) -> None:
    def one(name: str) -> None:
        source.filesystem.copy_file(f"{source.path}/{name}", f"{target.path}/{name}")

    with ThreadPoolExecutor(COPIES) as pool:
        for _ in pool.map(one, names):
            pass
