"""Paths as other systems write them, and folders as other systems leave them."""

from __future__ import annotations

import os
import unicodedata

import pytest

from unfused import corpora
from unfused.config import Config, RunOptions
from unfused.corpora import Columns
from unfused.data.recordings import read_recording
from unfused.pipeline import Request


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


def test_links_between_folders_of_classes_change_no_label(audio, tmp_path):
    audio("owl/a.wav", "elk/b.wav", "fox/c.wav")
    for name, other in (("owl", "elk"), ("elk", "fox"), ("fox", "owl")):
        (tmp_path / name / "see_also").symlink_to(f"../{other}", target_is_directory=True)
    listing = corpora.read(tmp_path)
    assert [clip.name for clip in listing.clips] == ["elk/b.wav", "fox/c.wav", "owl/a.wav"]
    assert listing.notes[0].startswith("3 links to folders lead to where others lie already")


@pytest.mark.parametrize(
    "written",
    [
        "file:///C:/data/dog/a%20b.wav",
        "file://localhost/home/bob/dog/a%20b.wav",
        "FILE:///home/bob/dog/a%20b.wav",
    ],
)
def test_an_address_of_a_file_on_another_system_is_found_by_its_end(audio, tmp_path, written):
    audio("dog/a b.wav")
    (tmp_path / "task.csv").write_text(f"path,label\n{written},dog\n")
    (clip,) = corpora.read(tmp_path / "task.csv").clips
    assert clip.path == str(tmp_path / "dog/a b.wav")


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


@pytest.fixture
def western(audio, tmp_path):
    """A folder of two classes; one class and one clip have names that are not UTF-8."""
    audio("dog/a.wav", "cat/b.wav")
    root = os.fsencode(tmp_path)
    os.rename(root + b"/cat", root + b"/k\xe4tzchen")
    os.rename(root + b"/dog/a.wav", root + b"/dog/m\xfcll.wav")
    return tmp_path


def test_names_that_are_not_utf8_are_percent_encoded_and_told(western):
    listing = corpora.read(western)
    assert [(clip.name, clip.label) for clip in listing.clips] == [
        ("dog/m%FCll.wav", "dog"),
        ("k%E4tzchen/b.wav", "k%E4tzchen"),
    ]
    (note,) = listing.notes
    assert note == "2 names are not UTF-8, and written percent-encoded, the first dog/m%FCll.wav."
    for clip in listing.clips:
        assert clip.size > 0 and len(read_recording(clip.path)) == clip.size


def test_a_folder_whose_own_name_is_not_utf8_is_read(western):
    place = os.fsdecode(os.fsencode(western) + b"/k\xe4tzchen")
    listing = corpora.read(place)
    (clip,) = listing.clips
    assert clip.path == f"{western}/k%E4tzchen/b.wav" and read_recording(clip.path)
    assert Request(Config(), RunOptions(), task=place).task == f"{western}/k%E4tzchen"


@pytest.mark.parametrize("code", ["cp1252", "utf-8"])
def test_a_manifest_names_files_whose_names_are_not_utf8(western, code):
    text = "path,label\ndog/müll.wav,dog\nkätzchen/b.wav,cat\n"
    (western / "all.csv").write_bytes(text.encode(code))
    listing = corpora.read(western / "all.csv")
    assert all(clip.size > 0 and read_recording(clip.path) for clip in listing.clips)
    assert listing.notes[-1] == (
        "2 of 2 names are written in UTF-8, and found in Windows' Western code page."
    )


def test_a_name_with_a_percent_sign_is_taken_as_it_is(audio, tmp_path):
    audio("dog/100%FF.wav", "cat/b%C3%BC.wav")
    listing = corpora.read(tmp_path)
    assert [clip.name for clip in listing.clips] == ["cat/b%C3%BC.wav", "dog/100%FF.wav"]
    assert listing.notes == () and all(read_recording(clip.path) for clip in listing.clips)


def test_bytes_that_are_not_utf8_and_percent_signs_may_stand_in_one_path(audio, tmp_path):
    audio("d%C3%A9%20/h.wav", "cat/c.wav")
    folder = tmp_path / "d%C3%A9%20"
    os.rename(folder / "h.wav", os.fsencode(folder) + b"/h\xfc%FC.wav")
    clip = corpora.read(tmp_path).clips[1]
    assert (clip.name, clip.label) == ("d%C3%A9%20/h%FC%25FC.wav", "d%C3%A9%20")
    assert clip.size > 0 and len(read_recording(clip.path)) == clip.size
    found, _ = read(tmp_path, "d%C3%A9%20/h%fc%25FC.wav")
    assert found is not None, "small letters do as well"


def test_a_name_that_becomes_that_of_another_file_is_told(audio, tmp_path):
    audio("dog/a%FF.wav", "dog/b.wav", "cat/c.wav")
    os.rename(tmp_path / "dog" / "b.wav", os.fsencode(tmp_path) + b"/dog/a\xff.wav")
    listing = corpora.read(tmp_path)
    assert [clip.name for clip in listing.clips] == ["cat/c.wav", "dog/a%FF.wav"]
    assert listing.notes[0].startswith("1 name is not UTF-8")
    assert "1 of them fall on another file's name, and are left out" in listing.notes[1]
