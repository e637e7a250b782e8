"""A disk that fills up in the middle of ingest is one sentence; with room, ingest completes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from unfused import locks
from unfused.config import AudioConfig, IngestConfig
from unfused.corpora.clip import Clip
from unfused.stages import Build, Tasks, ingest
from unfused.store import Folder, Store

RATE = 16000


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a file system of one MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_fills_up_is_one_sentence_and_nothing_of_a_task(
    ray_cluster, small_disk, tmp_path
):
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.wav" for number in range(30)]
    for path in paths:
        soundfile.write(path, rng.uniform(-0.5, 0.5, 2 * RATE), RATE)
    clips = [Clip(str(path), "a", "train") for path in paths]
    config = {"audio": AudioConfig(), "ingest": IngestConfig()}

    def build(root: Path) -> Build:
        out, checkpoints = Folder.of(root / "out"), Folder.of(root / "checkpoints")
        return Build("ingest", config, {}, out, checkpoints, clips)

    with pytest.raises(Exception) as failed:
        ingest.run([build(small_disk)], Tasks(ray_cluster))
    told = str(Store.at(str(small_disk)).failure(failed.value))
    store = f"the store {small_disk}"
    assert told == f"Cannot use {store} any more: no space left; free some space there."
    (built,) = ingest.run([build(tmp_path)], Tasks(ray_cluster))
    assert built.facts.clips.read == len(clips)


def test_a_write_that_a_full_disk_refuses_leaves_nothing(small_disk):
    folder = Folder.of(small_disk / "store")
    with pytest.raises(OSError, match="No space left"):
        folder.write("run.json", b"x" * 2**21)
    assert not [*folder.files()]


def test_a_lock_that_a_full_disk_has_no_room_for_is_the_stores_sentence(small_disk):
    store = Store.at(str(small_disk / "store"))
    for name in ("a", "b"):
        (small_disk / name).mkdir()
    with pytest.raises(OSError, match="No space left"), open(small_disk / "filler", "wb") as file:
        while True:
            file.write(b"x" * 4096)
            file.flush()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(locks.NoRoomForLock) as refused:
        locks.take(small_disk / "a" / "guarded")
    told = str(store.failure(refused.value))
    assert told.startswith("Cannot use ") and "make it writable" in told
