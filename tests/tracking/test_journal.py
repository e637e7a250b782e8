"""What a run has to tell MLflow outlives it, and one process at a time tells it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from unfused.store import Folder
from unfused.tracking import journal
from unfused.tracking.journal import Journal, Reader

HEAD = {"uri": "sqlite:///a.db", "experiment": "e", "store": "s", "subject": {}}


def a_journal(folder: Path, *entries: dict) -> Journal:
    made = Journal.begin(folder, HEAD)
    for entry in entries:
        made.append(entry)
    return made


def test_entries_come_back_in_order_also_those_that_follow_while_it_is_read(tmp_path):
    made = a_journal(tmp_path, {"at": 0.1, "n": 1}, {"n": np.float32(2.5)})
    reader = Reader(made)
    assert reader.next()["uri"] == "sqlite:///a.db"
    assert [reader.next(), reader.next(), reader.next()] == [{"at": 0.1, "n": 1}, {"n": 2.5}, None]
    made.append({"text": "ä" * 100_000})
    assert reader.next() == {"text": "ä" * 100_000}


def test_one_whose_run_goes_on_is_nobodys_else_and_one_that_is_left_is_taken_once(tmp_path):
    made = a_journal(tmp_path, {"n": 1})
    assert journal.left(tmp_path) == []
    made.release()
    (taken,) = journal.left(tmp_path)
    assert taken.id == made.id and list(taken.entries()) == [{"n": 1}]
    assert journal.left(tmp_path) == []
    taken.remove()
    assert not tmp_path.exists()


def test_a_line_that_was_cut_short_is_not_read(tmp_path):
    made = a_journal(tmp_path, {"n": 1}, {"n": 2})
    made.release()
    whole = made.path.read_bytes()
    for cut in (whole[:-4], whole[:-9] + bytes(9) + b'\n{"n": 3}\n'):
        made.path.write_bytes(cut)
        (taken,) = journal.left(tmp_path)
        assert list(taken.entries()) == [{"n": 1}]
        taken.release()


def a_head(**other: object) -> bytes:
    known = {"form": journal.FORM, "id": "x", "at": 1.5, **HEAD, **other}
    return json.dumps(known).encode() + b"\n"


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\0" * 4096, b"no json\n", b"[]\n", b'{"form": 99}\n', a_head(at=None),
        a_head(subject="a run"), a_head(uri=7),
    ],
)  # fmt: skip
def test_what_is_no_journal_is_left_alone(tmp_path, content):
    (tmp_path / "x.jsonl").write_bytes(content)
    assert journal.left(tmp_path) == []
    assert (tmp_path / "x.jsonl").read_bytes() == content


def test_a_run_that_died_before_its_head_was_written_leaves_nothing_for_long(tmp_path):
    unborn, young = tmp_path / "a.new", tmp_path / "b.new"
    for path in (unborn, young):
        path.touch()
    os.utime(unborn, (1, 1))
    assert journal.left(tmp_path) == []
    assert list(tmp_path.iterdir()) == [young]


def test_links_and_pipes_are_not_opened(tmp_path):
    elsewhere = a_journal(tmp_path / "elsewhere", {"n": 1})
    elsewhere.release()
    (tmp_path / "link.jsonl").symlink_to(elsewhere.path)
    os.mkfifo(tmp_path / "pipe.jsonl")
    assert journal.left(tmp_path) == []


def test_what_the_disk_does_not_take_is_told_all_the_same_while_the_run_goes_on(
    tmp_path, monkeypatch
):
    (tmp_path / "tracking").write_text("in the way")
    nowhere = a_journal(tmp_path / "tracking", {"n": 1})
    assert not nowhere.safe and list(nowhere.entries()) == [{"n": 1}]
    filling = a_journal(tmp_path / "filling", {"n": 1})
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:3]))
    filling.append({"n": 2})
    monkeypatch.undo()
    filling.append({"n": 3})
    assert not filling.safe and list(filling.entries()) == [{"n": 1}, {"n": 2}, {"n": 3}]
    filling.release()
    (left,) = journal.left(tmp_path / "filling")
    assert list(left.entries()) == [{"n": 1}]


def test_of_a_store_behind_a_network_it_is_in_this_users_state_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    one, other = (journal.folder_of(Folder(f"s3://bucket/{name}")) for name in "ab")
    assert one != other and one.is_relative_to(tmp_path / "unfused" / "tracking")
    assert journal.folder_of(Folder.of(tmp_path)) == tmp_path / "tracking"
