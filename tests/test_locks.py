"""One at a time, and nothing of anybody else's is touched or waited for."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lock_holder import holder_of
from small_searches import TEMPERATURE, open_study
from unfused import locks, tracking
from unfused.locks import LockError, folder_of
from unfused.tracking.place import sole_opener

COUNTER = """
import sys
from pathlib import Path
from unfused import locks
count = Path(sys.argv[1])
for _ in range(200):
    with locks.held(count):
        count.write_text(str(int(count.read_text()) + 1))
"""


def test_two_processes_exclude_each_other_and_leave_nothing_behind(tmp_path):
    count = tmp_path / "count"
    count.write_text("0")
    both = [subprocess.Popen([sys.executable, "-c", COUNTER, str(count)]) for _ in range(2)]
    assert [one.wait(60) for one in both] == [0, 0]
    assert count.read_text() == "400" and list(tmp_path.iterdir()) == [count]


def test_a_killed_holder_lets_go_and_what_it_has_left_is_swept(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    with holder_of(one) as process, holder_of(other):
        assert locks.take(one) is None
        process.send_signal(signal.SIGKILL)
        process.wait(20)
        assert (folder_of(one) / "one.lock").exists()
        locks.sweep(tmp_path)
        assert os.listdir(folder_of(one)) == ["other.lock"]
        with locks.held(one):
            assert locks.take(one) is None
    locks.sweep(tmp_path)
    assert not folder_of(one).exists()


def test_threads_exclude_each_other_and_one_that_waits_goes_on(tmp_path):
    entered = threading.Event()

    def second() -> None:
        with locks.held(tmp_path / "k"):
            entered.set()

    with locks.held(tmp_path / "k"):
        waiting = threading.Thread(target=second, daemon=True)
        waiting.start()
        assert not entered.wait(0.2)
    assert entered.wait(20)
    waiting.join(20)


def test_programs_that_are_started_meanwhile_do_not_hold_it_too(tmp_path):
    lock = locks.take(tmp_path / "k")
    assert lock is not None
    daemon = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        os.close(lock.file)
        os.close(lock.folder)
        # The kernel closes what is not handed on a moment after the program has begun.
        until = time.monotonic() + 10
        while (again := locks.take(tmp_path / "k")) is None and time.monotonic() < until:
            time.sleep(0.01)
        assert again is not None
        again.release()
    finally:
        daemon.kill()
        daemon.wait(20)


def test_a_lock_is_open_to_this_user_alone(tmp_path):
    os.mkdir(folder_of(tmp_path / "k"), 0o777)
    os.chmod(folder_of(tmp_path / "k"), 0o777)
    with locks.held(tmp_path / "k"):
        folder = folder_of(tmp_path / "k")
        assert folder.stat().st_mode & 0o777 == 0o700
        assert (folder / "k.lock").stat().st_mode & 0o777 == 0o600


def _link(place: Path, target: Path) -> None:
    place.symlink_to(target)


def _dangling(place: Path, target: Path) -> None:
    place.symlink_to(target.parent / "nowhere")


def _folder(place: Path, target: Path) -> None:
    place.mkdir()


def _fifo(place: Path, target: Path) -> None:
    os.mkfifo(place)


def _socket(place: Path, target: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(place))


@pytest.mark.parametrize("plant", [_link, _dangling, _folder, _fifo, _socket])
def test_what_is_no_lock_is_left_as_it_is_in_one_sentence(tmp_path, plant):
    target = tmp_path / "dear.txt"
    target.write_text("dear")
    guarded = tmp_path / "store" / "mlflow.db"
    place = folder_of(guarded) / "mlflow.db.lock"
    place.parent.mkdir(parents=True)
    plant(place, target)
    before = place.lstat()
    began = time.monotonic()
    with pytest.raises(LockError, match="remove it and run again") as refused:
        locks.take(guarded, wait=True)
    assert time.monotonic() - began < 2
    assert str(place) in str(refused.value) and "\n" not in str(refused.value)
    assert target.read_text() == "dear" and place.lstat().st_ino == before.st_ino
    assert not (tmp_path / "nowhere").exists()


def test_a_folder_of_locks_that_is_a_link_is_refused(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    folder_of(tmp_path / "k").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LockError, match="is not a folder"):
        locks.take(tmp_path / "k")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_somebody_elses_lock_is_refused_at_once_and_not_waited_for(tmp_path, monkeypatch):
    with holder_of(tmp_path / "k"):
        place = folder_of(tmp_path / "k")
        monkeypatch.setattr(locks, "folder_of", lambda guarded: place)
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        with pytest.raises(LockError, match="is not this user's"):
            locks.take(tmp_path / "k", wait=True)


def test_a_place_where_no_folder_can_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    for place in (Path("/proc/k"), tmp_path / "file" / "k"):
        with pytest.raises(LockError, match=r"make its folder writable|is not a folder"):
            locks.take(place)


def test_a_file_system_without_locks_says_so(tmp_path, monkeypatch):
    def unsupported(file: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", unsupported)
    with pytest.raises(locks.NoLocks, match="has no locks"):
        locks.take(tmp_path / "k")
    with sole_opener(f"sqlite:///{tmp_path}/mlflow.db"), open_study(tmp_path, TEMPERATURE) as study:
        study.ask()
        assert len(study.trials) == 1


def test_links_where_the_locks_of_mlflow_and_searches_once_were_lead_nowhere(tmp_path):
    target = tmp_path / "dear.txt"
    target.write_text("dear")
    (tmp_path / "mlflow.db.lock").symlink_to(target)
    with sole_opener(tracking.initialise(f"sqlite:///{tmp_path}/mlflow.db")):
        assert locks.take(tmp_path / "mlflow.db") is None
    assert target.read_text() == "dear"


def test_a_journals_lock_that_a_killed_search_has_left_is_not_waited_for(tmp_path):
    (tmp_path / "s.journal").touch()
    (tmp_path / "s.journal.lock").symlink_to(tmp_path / "s.journal")
    began = time.monotonic()
    with open_study(tmp_path, TEMPERATURE) as study:
        study.ask()
    assert time.monotonic() - began < 20
