"""What comes of files: clips, segments, stretches, and what is told of them."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from unfused.config import AudioConfig, IngestConfig
from unfused.corpora.clip import Clip
from unfused.stages.reading import CORPUS, TooManyBadClips, read
from unfused.stages.shards import span_digest
from unfused.store import Folder

RATE = 16000


def here(rows, task, total, doing):
    return [json.loads(json.dumps(task(json.loads(row)))) for row in rows]


@pytest.fixture
def wav(tmp_path):
    """`wav(name, seconds)` is the listed clip of a new file of noise, or of given samples."""

    def write(name: str, sound: float | np.ndarray, rate: int = RATE, **fields) -> Clip:
        if not isinstance(sound, np.ndarray):
            rng = np.random.default_rng(len(name))
            sound = rng.uniform(-0.5, 0.5, round(sound * rate))
        path = tmp_path / name
        soundfile.write(path, sound, rate)
        return Clip(str(path), size=path.stat().st_size, name=name, **fields)

    return write


def reading(clips, out=None, audio=None, **ingest):
    return read(clips, audio or AudioConfig(), IngestConfig(**ingest), here, out)


def seconds(found, split=CORPUS):
    return [round(row.length / RATE, 2) for row in found.rows[split]]


def test_an_hour_of_recording_counts_as_an_hour(wav):
    found = reading([wav("long.flac", 61.0), wav("short.wav", 20.0)])
    assert sorted(seconds(found)) == [1.0, *[10.0] * 6, 20.0]
    assert found.notes() == ["1 recording is long, and cut into 7 segments."]


def test_segments_of_a_recording_follow_each_other_and_are_known_by_their_place(wav, tmp_path):
    clip = wav("long.wav", 35.0)
    out = Folder.of(tmp_path / "out")
    rows = reading([clip], out).rows[CORPUS]
    assert [(row.start, row.end) for row in rows] == [(0, 10), (10, 20), (20, 30), (30, 35)]
    whole = pq.read_table(tmp_path / "out/corpus/part-00000.parquet").to_pylist()
    assert [row["digest"] for row in whole] == [row.digest for row in rows]
    assert len({row.digest for row in rows}) == 4
    samples = np.concatenate([np.frombuffer(row["samples"], "<i2") for row in whole])
    exact = soundfile.read(clip.path, dtype="int16")[0]
    np.testing.assert_array_equal(samples, exact)


def test_labelled_recordings_are_cut_where_that_is_asked_for(wav):
    clip = wav("night.wav", 50.0, label="owl", split="train")
    assert seconds(reading([clip]), "train") == [50.0]
    found = reading([clip], segment_seconds=20, segment_overlap=0.5)
    assert [(row.start, row.end) for row in found.rows["train"]] == [
        (0, 20), (10, 30), (20, 40), (30, 50),
    ]  # fmt: skip
    assert {row.clip for row in found.rows["train"]} == {0}


def test_a_corpus_is_left_whole_where_that_is_asked_for(wav):
    assert seconds(reading([wav("long.wav", 40.0)], segment_seconds="off")) == [40.0]


def test_segments_that_are_too_quiet_are_left_out_and_counted(wav):
    sound = np.concatenate([np.full(RATE * 20, 1e-5), np.sin(np.arange(RATE * 20)) / 2])
    clip = wav("night.wav", sound)
    found = reading([clip, wav("loud.wav", 1.0)], segment_min_level=-60)
    assert sorted(seconds(found)) == [1.0, 10.0, 10.0]
    assert "2 segments below -60 dBFS are left out." in found.notes()


def test_a_gap_in_a_long_recording_costs_its_segment_alone(wav, tmp_path):
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, RATE * 40)
    clip = wav("night.wav", sound)
    sound[RATE * 15] = np.nan
    soundfile.write(clip.path, sound, RATE, subtype="FLOAT")
    found = reading([clip])
    assert [row.start for row in found.rows[CORPUS]] == [0, 20, 30]
    (suspect,) = found.suspects
    assert (suspect["start"], suspect["reason"]) == (10, "NaN or infinite samples")
    assert "1 segment of long recordings cannot be used" in found.warnings()[0]


def test_stretches_are_read_from_one_file(wav):
    clip = wav("site.wav", 12.0, rate=44100)
    spans = [(2.0, 3.5), (0.25, 1.0), (11.0, None), (20.0, 21.0)]
    clips = [
        Clip(clip.path, "a", "train", size=clip.size, start=start, end=end) for start, end in spans
    ]
    found = reading(clips, max_bad_fraction=1.0)
    assert {row.clip: round(row.length / RATE, 3) for row in found.rows["train"]} == {
        0: 1.5, 1: 0.75, 2: 1.0,
    }  # fmt: skip
    assert list(found.bad) == [3] and "12.00 s" in found.bad[3]
    (suspect,) = found.suspects
    assert (suspect["start"], suspect["end"]) == (20.0, 21.0)


def test_a_stretch_that_ends_after_the_recording_is_told_and_kept(wav):
    clip = wav("site.wav", 10.0)
    found = reading([Clip(clip.path, "a", "train", size=clip.size, start=8.0, end=12.0)])
    assert seconds(found, "train") == [2.0]
    (suspect,) = found.suspects
    assert suspect["kept"] and suspect["reason"] == "ends at 12.00 s of a recording of 10.00 s"
    assert found.warnings()[0].startswith("1 stretch ends after the recording does")


def test_damage_of_unknown_extent_is_told(wav, tmp_path):
    clip = wav("night.ogg", 40.0)
    path = tmp_path / "night.ogg"
    path.write_bytes(path.read_bytes()[:-300])
    found = reading([clip])
    assert len(found.rows[CORPUS]) >= 3
    assert found.cut_short and "Ogg page" in found.cut_short[0]["reason"]


def test_a_stretch_is_the_clip_that_one_would_cut_there(wav, tmp_path):
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, 44100 * 3)
    whole = wav("whole.wav", sound, 44100)
    cut = wav("cut.wav", sound[44100 : 2 * 44100], 44100, label="b", split="train")
    stretch = Clip(whole.path, "a", "train", size=whole.size, start=1.0, end=2.0)
    reading([stretch, cut], Folder.of(tmp_path / "out"))
    one, other = pq.read_table(tmp_path / "out/train/part-00000.parquet")["samples"].to_pylist()
    assert one == other


def test_the_same_bytes_are_kept_once(wav):
    clip = wav("a.wav", 1.0)
    found = reading([clip, wav("b.wav", 1.0), wav("c.wav", 2.0)])
    assert sorted(seconds(found)) == [1.0, 2.0]
    assert found.notes() == ["1 file has the same bytes as another; each is kept once."]


def test_empty_files_are_quarantined_and_no_reason_to_fail(wav, tmp_path):
    dead = []
    for i in range(12):
        (tmp_path / f"dead{i}.wav").touch()
        dead.append(Clip(str(tmp_path / f"dead{i}.wav"), size=0))
    found = reading([*dead, wav("alive.wav", 1.0)])
    found.check()
    assert found.reasons == {"empty": 12}
    assert found.warnings()[0].startswith("12 of 13 clips cannot be used (12 of them empty files)")
    with pytest.raises(TooManyBadClips):
        reading(dead).check()


def test_too_many_broken_files_are_refused(wav, tmp_path):
    (tmp_path / "words.wav").write_text("this is no audio")
    bad = Clip(str(tmp_path / "words.wav"), size=16)
    found = reading([bad, *(wav(f"{i}.wav", 1 + i / 10) for i in range(10))])
    with pytest.raises(TooManyBadClips, match=r"1 of 11 clips cannot be used, .*words.wav"):
        found.check()


@pytest.mark.parametrize(
    "sound",
    [np.zeros(RATE), np.full(RATE, 0.25), 1e-4 * np.sin(np.arange(RATE))],
    ids=["digital silence", "stuck at one value", "near silent"],
)
def test_silence_is_told_and_kept(wav, sound):
    found = reading([wav("silent.wav", sound), wav("sound.wav", 1.0)])
    assert len(found.rows[CORPUS]) == 2
    (suspect,) = found.suspects
    assert suspect["path"].endswith("silent.wav") and suspect["kept"] is True
    assert "1 clip is near silent throughout" in found.warnings()[0]


def test_channels_that_cancel_each_other_are_told(wav):
    tone = np.sin(np.arange(RATE) / 5) / 2
    found = reading([wav("anti.wav", np.stack([tone, -tone], 1))])
    assert "The channels of 1 recording cancel each other" in found.warnings()[0]
    assert not found.silent


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_a_channel_that_is_stuck_at_one_value_is_told(wav, value):
    tone = np.sin(np.arange(RATE) / 5) / 2
    found = reading([wav("stuck.wav", np.stack([tone, 0 * tone + value], 1)), wav("good.wav", 1.0)])
    (told,) = found.warnings()
    assert told.startswith("1 recording has a channel that is silent or stuck at one value")


def test_copies_of_a_file_that_cannot_be_used_are_as_useless(wav, tmp_path):
    clips = [wav(f"{i}.wav", np.zeros(0)) for i in range(6)] + [wav("good.wav", 1.0)]
    (tmp_path / "page0.wav").write_bytes(page := b"<html>" * 100)
    (tmp_path / "page1.wav").write_bytes(page)
    clips += [Clip(str(tmp_path / f"page{i}.wav"), size=600) for i in range(2)]
    found = reading(clips, max_bad_fraction=0.9)
    assert sorted(found.bad) == [0, 1, 2, 3, 4, 5, 7, 8] and not found.repeats
    assert found.reasons["empty"] == 6
    assert "(6 of them empty files)" in found.warnings()[0]


def test_where_in_a_recording_it_is_silent_is_told(wav):
    loud = np.random.default_rng(0).uniform(-0.5, 0.5, 40 * RATE)
    loud[20 * RATE : 30 * RATE] = 0
    assert "night.wav from 20 s on" in reading([wav("night.wav", loud)]).warnings()[0]


def test_a_long_recording_that_was_cut_off_gives_what_is_there(wav, tmp_path):
    clip = wav("night.wav", 60.0)
    data = (tmp_path / "night.wav").read_bytes()
    (tmp_path / "night.wav").write_bytes(data[: 44 + RATE * 2 * 45])
    found = reading([clip])
    assert seconds(found) == [10.0] * 4 + [5.0]
    assert found.warnings()[0].startswith("1 file is damaged, 15.0 s or more are lost, the first")
    assert found.suspects == [
        {"path": clip.path, "reason": "15.00 of 60.00 s are lost", "kept": True}
    ]
    labelled = reading([Clip(clip.path, "a", "train", size=clip.size)])
    assert "truncated" in labelled.bad[0] and "15.00" in labelled.bad[0]


def test_a_stretch_has_a_digest_of_its_own():
    assert span_digest("d", None, None) == "d"
    found = {span_digest("d", 0.0, 1.0), span_digest("d", 0.0, None), span_digest("e", 0.0, 1.0)}
    assert len(found) == 3 and all(len(one) == 64 for one in found)
