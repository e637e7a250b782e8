"""Paths as other systems write them, and folders as other systems leave them."""

from __future__ import annotations

import os
import unicodedata

import pytest

from unfused import corpora
from unfused.corpora import Columns


@pytest.fixture
def audio(tmp_path):
    def write(*names: str) -> None:
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(name.encode())

    return write


def read(folder, written: str, **columns):
    (folder / "task.csv").write_text(f"path,label\n{written},dog\n")
    listing = corpora.read(folder / "task.csv", Columns(**columns))
    (clip,) = listing.clips
    return os.path.relpath(clip.path, folder) if clip.size > 0 else None, listing.notes


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("audio\\dog\\a b.wav", "backslashes"),
        ("C:\\data\\audio\\dog\\a b.wav", "another system"),
        ("/home/somebody/audio/dog/a b.wav", "another system"),
        ("audio/dog/a%20b.wav", "percent-encoded"),
        ("audio/dog/a b", "without an ending"),
        ("audio/dog/a b.WAV", "another case"),
        ("audio/dog/a b.wav", ""),
    ],
)
def test_a_file_is_found_however_its_name_is_written(audio, tmp_path, written, told):
    audio("audio/dog/a b.wav")
    found, notes = read(tmp_path, written)
    assert found == "audio/dog/a b.wav"
    assert len(notes) == bool(told) and all(told in note and "1 of 1" in note for note in notes)


def test_two_names_that_fall_on_one_file_are_missing(audio, tmp_path):
    audio("a.wav", "b.wav")
    rows = ["/old/dog/a.wav,dog", "/old/cat/a.wav,cat", "/old/cat/b.wav,cat"]
    (tmp_path / "task.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    listing = corpora.read(tmp_path / "task.csv")
    assert [clip.size > 0 for clip in listing.clips] == [False, False, True]
    assert listing.notes[-1] == "2 of them fall on a file that others are, and are missing."


def test_a_file_uri_is_a_path(audio, tmp_path):
    audio("a b.wav")
    assert read(tmp_path, (tmp_path / "a b.wav").as_uri()) == ("a b.wav", ())


def test_both_forms_of_unicode_are_one_name(audio, tmp_path):
    audio(unicodedata.normalize("NFD", "mésange.wav"))
    found, (note,) = read(tmp_path, unicodedata.normalize("NFC", "mésange.wav"))
    assert found and "another form of Unicode" in note


def test_what_is_there_as_written_is_taken_as_written(audio, tmp_path):
    audio("a%20b.wav", "a b.wav")
    assert read(tmp_path, "a%20b.wav") == ("a%20b.wav", ())


def test_the_root_says_where_paths_start(audio, tmp_path):
    audio("far/away/dog/a.wav")
    assert read(tmp_path, "dog/a.wav") == (None, ())
    assert read(tmp_path, "dog/a.wav", root=str(tmp_path / "far/away"))[0] == "far/away/dog/a.wav"


def test_a_link_back_to_its_parent_lists_every_file_once(audio, tmp_path):
    audio("dog/a.wav", "cat/b.wav")
    (tmp_path / "dog" / "up").symlink_to(tmp_path, target_is_directory=True)
    listing = corpora.read(tmp_path)
    assert [clip.name for clip in listing.clips] == ["cat/b.wav", "dog/a.wav"]
    assert "every file is listed once" in listing.notes[0]


def test_links_that_lead_nowhere_are_no_folders_and_no_tables(audio, tmp_path):
    audio("dog/a.wav", "cat/b.wav")
    (tmp_path / "self").symlink_to(tmp_path / "self")
    (tmp_path / "notes.txt").symlink_to(tmp_path / "gone.txt")
    listing = corpora.read(tmp_path)
    assert [clip.label for clip in listing.clips] == ["cat", "dog"]
    assert "2 files are no audio by name" in listing.notes[0]


def test_what_systems_leave_in_folders_is_no_clip(audio, tmp_path):
    audio("dog/a.wav", "dog/._a.wav", "dog/.DS_Store", "__MACOSX/dog/a.wav", "cat/b.wav")
    audio("cat/Thumbs.db")
    listing = corpora.read(tmp_path)
    assert [clip.name for clip in listing.clips] == ["cat/b.wav", "dog/a.wav"]
    assert listing.notes == ()


def test_names_that_are_not_utf8_are_told(audio, tmp_path):
    audio("dog/a.wav", "cat/b.wav")
    with open(os.fsencode(tmp_path) + b"/dog/m\xfcll.wav", "wb") as file:
        file.write(b"x")
    listing = corpora.read(tmp_path)
    assert len(listing.clips) == 2
    (note,) = listing.notes
    assert note == "1 name is not UTF-8 and left out, the first dog/m\\xfcll.wav; rename them."
