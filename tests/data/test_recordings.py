"""Files are read where they lie, and nothing but files."""

from __future__ import annotations

import hashlib
import os
import socket

import numpy as np
import pytest
import soundfile

from unfused import corpora
from unfused.audio.decode import BadClip, Grid, Parts, decode
from unfused.data.recordings import digest_of, has_sound, open_recording, read_recording


@pytest.fixture
def wav(tmp_path):
    path = tmp_path / "a clip.wav"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 400_000), 16000)
    return path


def test_a_file_that_is_open_decodes_as_its_bytes_do(wav):
    place = str(wav)
    with open_recording(place) as file:
        decoded = decode(file, 16000, 60.0)
        (part,) = Parts(file, 16000, [(20.0, 21.0)])
    np.testing.assert_array_equal(decoded, decode(read_recording(place), 16000, 60.0))
    np.testing.assert_array_equal(part.samples, decoded[320_000:336_000])


def test_a_digest_is_that_of_the_bytes(wav):
    assert digest_of(str(wav)) == hashlib.sha256(wav.read_bytes()).hexdigest()


@pytest.mark.parametrize("read", [read_recording, digest_of])
def test_what_is_no_file_is_refused_without_waiting(read, tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "folder.wav").mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket.wav"))
    kinds = {"pipe": "pipe", "folder": "folder", "socket": "socket"}
    places = {str(tmp_path / f"{name}.wav"): kind for name, kind in kinds.items()}
    for place, kind in (places | {"/dev/zero": "device"}).items():
        with pytest.raises(BadClip) as caught:
            read(place)
        assert str(caught.value) == f"not a file: it is a {kind}"


@pytest.mark.parametrize("read", [read_recording, digest_of])
def test_a_file_that_is_not_there_is_missing(read, tmp_path):
    with pytest.raises(BadClip, match="missing"):
        read(str(tmp_path / "none.wav"))


def test_a_recording_in_an_object_store_is_read_like_a_local_one(bucket, credentials, wav):
    put, query = bucket
    data = wav.read_bytes()
    put("night/a b.wav", data)
    put("night/copy.wav", data)
    place, copy = (f"s3://clips/night/{name}{query}" for name in ("a%20b.wav", "copy.wav"))
    assert digest_of(place) == hashlib.sha256(data).hexdigest()
    with open_recording(place) as remote, wav.open("rb") as local:
        there, here = (list(Parts(file, 8000, Grid(10.0))) for file in (remote, local))
    assert [len(part.samples) for part in there] == [80000, 80000, 40000]
    for one, other in zip(there, here, strict=True):
        np.testing.assert_array_equal(one.samples, other.samples)
    clips = corpora.read(f"s3://clips/night/{query}").clips
    assert {clip.path for clip in clips} == {place, copy}
    assert len(corpora.without_repeats(clips, has_sound)[0]) == 1
    with pytest.raises(BadClip, match="missing"):
        digest_of(f"s3://clips/night/gone.wav{query}")


def test_a_file_that_is_no_audio_has_no_sound_and_a_damaged_one_may_have_some(tmp_path, wav):
    data = wav.read_bytes()
    for name, content, sounds in (
        ("cut.wav", data[: len(data) // 2], True), ("head.wav", data[:44], False),
        ("page.wav", b"<html>404 not found</html>", False), ("empty.wav", b"", False),
    ):  # fmt: skip
        (tmp_path / name).write_bytes(content)
        assert has_sound(str(tmp_path / name)) is sounds, name
    assert has_sound(str(wav)) and not has_sound(str(tmp_path / "gone.wav"))
