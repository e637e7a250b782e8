"""Parts of a recording are what one gets by cutting the file there and decoding each piece."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from sounds import RATE, by_ffmpeg, encoded, noise, pages, tone

from unfused.audio.decode import BadClip, Grid, Parts, decode


def cut(samples: np.ndarray, rate: int, start: float, end: float | None) -> np.ndarray:
    """The same piece, cut out and written to a file of its own."""
    stop = len(samples) if end is None else round(end * rate)
    return decode(encoded(samples[round(start * rate) : stop], rate, subtype="FLOAT"), RATE, 600.0)


@pytest.mark.parametrize(("rate", "channels"), [(16000, 1), (44100, 2), (8000, 1)])
def test_parts_that_overlap_in_any_order_are_the_pieces_of_the_file(rate, channels):
    samples = noise(20 * rate, channels)
    spans = [(12.0, 13.5), (0.0, 0.1), (3.3337, 14.2), (19.0, None), (3.0, 4.0), (0.0, None)]
    parts = Parts(encoded(samples, rate, subtype="FLOAT"), RATE, spans)
    found = list(parts)
    assert [part.index for part in found] == [1, 4, 0, 2, 3, 5]
    for part in found:
        assert part.reason == ""
        np.testing.assert_array_equal(part.samples, cut(samples, rate, *spans[part.index]))
    assert (parts.heard.seconds, parts.heard.lost, parts.heard.rate) == (20.0, 0.0, rate)


@pytest.mark.parametrize("kind", ["FLAC", "OGG"])
def test_parts_of_a_compressed_file_are_pieces_of_what_it_decodes_to(kind):
    data = encoded(noise(30 * RATE), kind=kind)
    whole = decode(data, RATE, 600.0)
    for part in Parts(data, RATE, [(1.0, 2.0), (17.25, 28.0)]):
        begin, end = round(part.start * RATE), round(part.end * RATE)
        np.testing.assert_array_equal(part.samples, whole[begin:end])


def test_parts_of_what_only_ffmpeg_reads_are_pieces_of_it_too():
    data = by_ffmpeg(tone(6.0, RATE), RATE, "mp4", "aac")
    whole = decode(data, RATE, 600.0)
    for part in Parts(io.BytesIO(data), RATE, [(1.0, 2.5), (5.0, None)]):
        np.testing.assert_array_equal(
            part.samples, whole[round(part.start * RATE) :][: 3 * RATE // 2]
        )


def test_three_hundred_stretches_take_one_pass_over_the_file():
    class Counted(io.BytesIO):
        read_bytes = 0

        def readinto(self, buffer):
            count = super().readinto(buffer)
            self.read_bytes += count
            return count

    samples = noise(300 * 1000)
    file = Counted(encoded(samples, 1000, subtype="FLOAT"))
    parts = list(Parts(file, RATE, [(float(i), i + 1.0) for i in range(300)]))
    assert [part.index for part in parts] == list(range(300))
    assert file.read_bytes < 1.1 * len(file.getvalue())


def test_a_part_after_the_end_says_so_and_one_that_ends_there_is_cut():
    data = encoded(noise(round(9.5 * RATE)))
    spans = [(12.0, 13.0), (9.0, 11.0), (9.0, 9.55), (3.0, 3.0)]
    parts = {part.index: part for part in Parts(data, RATE, spans)}
    assert parts[0].samples is None
    assert parts[0].reason == "beyond the end: it begins at 12.00 s of a recording of 9.50 s"
    assert (len(parts[1].samples), parts[1].end) == (RATE // 2, 9.5)
    assert parts[1].reason == "ends at 11.00 s of a recording of 9.50 s"
    assert (len(parts[2].samples), parts[2].reason) == (RATE // 2, "")
    assert parts[3].samples is None and parts[3].reason.startswith("empty")


@pytest.mark.parametrize(
    ("seconds", "ends"),
    [(9.0, [4, 8, 9]), (8.4, [4, 8]), (8.0, [4, 8]), (0.3, [0.3]), (8.5, [4, 8, 8.5])],
)
def test_a_grid_has_segments_as_long_as_the_recording_lasts(seconds, ends):
    parts = list(Parts(encoded(noise(round(seconds * RATE))), RATE, Grid(4.0)))
    assert [part.end for part in parts] == ends
    assert [part.start for part in parts] == [4.0 * k for k in range(len(ends))]
    assert [len(part.samples) for part in parts] == [
        round((part.end - part.start) * RATE) for part in parts
    ]


def test_segments_that_overlap_end_with_the_one_that_reaches_the_end():
    parts = list(Parts(encoded(noise(9 * RATE)), RATE, Grid(4.0, overlap=0.5)))
    assert [(part.start, part.end) for part in parts] == [(0, 4), (2, 6), (4, 8), (6, 9)]


@pytest.mark.parametrize("kind", ["WAV", "FLAC"])
def test_a_long_recording_that_is_cut_short_gives_what_is_there_and_tells_what_is_not(kind):
    samples = noise(60 * RATE)
    data = encoded(samples, kind=kind)
    parts = Parts(data[: len(data) // 2], RATE, [(0.0, 10.0), (20.0, 25.0), (50.0, 55.0)])
    found = list(parts)
    assert [part.samples is None for part in found] == [False, False, True]
    expected = decode(data, RATE, 600.0)[20 * RATE : 25 * RATE]
    np.testing.assert_array_equal(found[1].samples, expected)
    assert parts.heard.lost == pytest.approx(30.0, abs=1.0)
    assert parts.heard.damage.endswith("of 60.00 s are lost")


def test_a_flac_that_is_damaged_in_the_middle_keeps_the_time_of_what_follows():
    data = bytearray(encoded(noise(60 * RATE), kind="FLAC"))
    whole = decode(bytes(data), RATE, 600.0)
    data[len(data) // 2 : len(data) // 2 + 200] = bytes(200)
    parts = Parts(bytes(data), RATE, [(50.0, 52.0)])
    (part,) = parts
    np.testing.assert_array_equal(part.samples, whole[50 * RATE : 52 * RATE])
    assert 0 < parts.heard.lost < 2


def tone_from_four_to_five(rate: int) -> np.ndarray:
    """(8 rate,), silent before and after."""
    wave = np.zeros(8 * rate)
    wave[4 * rate : 5 * rate] = tone(1.0, rate)
    return wave


def assert_heard_from_four_to_five(data: bytes, lost: float) -> None:
    parts = Parts(data, RATE, [(3.1, 3.9), (4.1, 4.9), (5.1, 5.9)])
    before, there, behind = (np.abs(part.samples).max() / 32768 for part in parts)
    assert there == pytest.approx(0.3, abs=0.05) and max(before, behind) < 0.05
    assert parts.heard.lost == pytest.approx(lost, abs=0.1)
    assert parts.heard.seconds == pytest.approx(8.0 - lost, abs=0.1)
    with pytest.raises(BadClip, match=r"truncated: \d\.\d\d of [78]\.\d\d s are lost"):
        decode(data, RATE, 600.0)


@pytest.mark.parametrize(
    ("kind", "codec"),
    [("webm", "libopus"), ("matroska", "aac"), ("mp4", "aac"), ("mpegts", "aac")],
)
@pytest.mark.parametrize("hole", [(1.0, 1.5), (2.0, 3.0)])
def test_what_lies_behind_missing_packets_keeps_its_time(kind, codec, hole):
    wave = tone_from_four_to_five(48000)
    data = by_ffmpeg(wave, 48000, kind, codec, hole=hole)
    assert_heard_from_four_to_five(data, hole[1] - hole[0])


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_what_lies_behind_missing_pages_keeps_its_time(subtype):
    wave = tone_from_four_to_five(RATE) + 0.05 * noise(8 * RATE)[:, 0]
    parts = pages(encoded(wave, kind="OGG", subtype=subtype))
    ends = [int.from_bytes(page[6:14], "little") for page in parts]
    left_out = next(number for number, end in enumerate(ends) if end > ends[-1] / 8)
    lost = 8 * (ends[left_out] - ends[left_out - 1]) / ends[-1]
    assert lost > 0.3
    assert_heard_from_four_to_five(b"".join(parts[:left_out] + parts[left_out + 1 :]), lost)


def test_time_stamps_that_jump_by_days_cost_no_memory():
    wave = tone_from_four_to_five(48000)
    first, second = (by_ffmpeg(wave, 48000, "mpegts", "aac", start=start) for start in (0, 9e4))
    parts = list(Parts(first + second, RATE, Grid(4.0)))
    assert len(parts) == 4


def test_a_hole_that_is_too_long_to_be_filled_is_told_all_the_same(monkeypatch):
    monkeypatch.setattr("unfused.audio.libav.LONGEST_HOLE", 0.5)
    data = by_ffmpeg(tone_from_four_to_five(48000), 48000, "webm", "libopus", hole=(2.0, 3.0))
    parts = Parts(data, RATE, [(0.0, None)])
    (part,) = parts
    assert len(part.samples) == pytest.approx(7 * RATE, abs=0.1 * RATE)
    assert parts.heard.lost == pytest.approx(1.0, abs=0.1)


def test_a_part_with_samples_that_are_no_numbers_is_refused_alone():
    samples = noise(3 * RATE)
    samples[RATE + 5] = np.nan
    parts = list(Parts(encoded(samples, subtype="FLOAT"), RATE, Grid(1.0)))
    assert [part.reason for part in parts] == ["", "NaN or infinite samples", ""]
    assert parts[1].samples is None


def test_a_part_that_is_too_long_is_refused_alone():
    parts = Parts(encoded(noise(3 * RATE)), RATE, [(0.0, 1.0), (0.0, None)], max_seconds=1.0)
    assert [part.reason for part in parts] == ["", "longer than 1 s"]


def test_a_recording_without_sound_has_no_parts():
    for data, reason in ((encoded(noise(0)), "empty"), (b"text, not sound" * 9, "not audio")):
        with pytest.raises(BadClip) as caught:
            list(Parts(data, RATE, Grid(1.0)))
        assert caught.value.reason == reason


MEASURED = """
import resource, sys
import numpy
from unfused.audio.decode import Grid, Parts
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = peak()
with open(sys.argv[1], "rb") as file:
    count = sum(1 for _ in Parts(file, 16000, Grid(10.0)))
print(count, peak() - before)
"""


def test_ten_minutes_of_stereo_needs_the_memory_of_its_parts(tmp_path):
    path = tmp_path / "long.wav"
    minute = np.tile(noise(44100, channels=2), (60, 1))
    with soundfile.SoundFile(path, "w", 44100, 2, "PCM_16") as file:
        for _ in range(10):
            file.write(minute)
    command = [sys.executable, "-c", MEASURED, str(path)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert int(said[0]) == 60
    assert int(said[1]) < 70
