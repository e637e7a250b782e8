"""What a process's own Ray keeps is for nobody else, and goes with the process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from unfused.runtime import place as places
from unfused.runtime.place import NoPlace, Place


@pytest.fixture
def root(monkeypatch) -> Path:
    """A short folder for temporary files."""
    made = Path(os.path.realpath(f"/tmp/u{os.getpid()}"))
    made.mkdir()
    monkeypatch.setenv("TMPDIR", str(made))
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    yield made
    subprocess.run(["rm", "-rf", str(made)], check=True)


def test_nobody_else_sees_what_is_there(root):
    old = os.umask(0)
    try:
        place = Place.make()
    finally:
        os.umask(old)
    assert place.folder.parent.parent == root
    modes = [one.stat().st_mode & 0o777 for one in (place.folder.parent, place.folder, place.token)]
    assert modes == [0o700, 0o700, 0o600]
    assert len(place.token.read_text()) == 64
    place.remove()
    assert not place.folder.exists()


def test_the_folder_of_a_process_that_was_killed_goes_when_the_next_one_starts(root):
    program = (
        "import os, signal; from unfused.runtime.place import Place;"
        "print(Place.make().folder, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    left = Path(done.stdout.strip())
    assert (left / "token").exists()
    living = Place.make()
    assert not left.exists()
    later = Place.make()
    assert living.folder.exists()
    living.remove()
    later.remove()


def test_a_long_folder_for_temporary_files_is_passed_over(root, monkeypatch):
    long = root / ("x" * 120)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    place = Place.make()
    assert len(f"{place.folder}/{places.RAYS_SOCKET}") <= places.MOST_SOCKET_BYTES
    place.remove()


@pytest.mark.parametrize("there", ["link", "file"])
def test_what_lies_in_its_place_is_left_alone(root, there, monkeypatch):
    target = root / "others"
    target.mkdir(0o755)
    mine = root / f"unfused-{os.geteuid()}"
    mine.symlink_to(target) if there == "link" else mine.write_text("kept")
    monkeypatch.setattr(places, "ROOTS", ())
    with pytest.raises(NoPlace, match=f"cannot use {root} .*set TMPDIR to a folder of yours"):
        Place.make()
    assert not [*target.iterdir()] and target.stat().st_mode & 0o777 == 0o755


def test_a_root_that_cannot_be_written_is_passed_over(root, monkeypatch):
    monkeypatch.setenv("TMPDIR", "/proc/1")
    monkeypatch.setattr(places, "ROOTS", (str(root),))
    place = Place.make()
    assert place.folder.is_relative_to(root)
    place.remove()
