"""Files of every format that people bring, held against FFmpeg's reading of the same."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import soundfile
from sounds import RATE, by_ffmpeg, encoded, heard_by_ffmpeg, noise, tone

from unfused.audio.decode import BadClip, decode, decode_heard

BY_FFMPEG = [
    ("ipod", "aac", 44100),
    ("mp4", "aac", 48000),
    ("adts", "aac", 16000),
    ("webm", "libopus", 48000),
    ("matroska", "libopus", 48000),
    ("ipod", "alac", 44100),
    ("asf", "wmav2", 44100),
    ("avi", "pcm_s16le", 44100),
    ("mpegts", "aac", 44100),
    ("ac3", "ac3", 48000),
    ("flv", "aac", 44100),
    ("tta", "tta", 44100),
    ("wv", "wavpack", 44100),
]


@pytest.mark.parametrize(("kind", "codec", "rate"), BY_FFMPEG)
@pytest.mark.parametrize("channels", [1, 2])
def test_what_libsndfile_cannot_read_is_what_ffmpeg_reads(kind, codec, rate, channels):
    wave = np.stack([tone(2.0, rate), 0.5 * tone(2.0, rate)], axis=1)[:, :channels]
    data = by_ffmpeg(wave, rate, kind, codec, bits=128000)
    decoded, heard = decode_heard(data, rate, 60.0)
    assert (heard.rate, heard.channels, heard.damage) == (rate, channels, "")
    expected = heard_by_ffmpeg(data).mean(axis=1)
    np.testing.assert_allclose(decoded / 32768, expected, atol=1e-4)
    assert heard.seconds == pytest.approx(2.0, abs=0.15)


@pytest.mark.parametrize("kind", ["amr", "3gp"])
def test_a_telephone_recording_is_the_tone_that_was_spoken(kind):
    data = by_ffmpeg(tone(2.0, 8000), 8000, kind, "libopencore_amrnb", bits=12200)
    decoded, heard = decode_heard(data, 8000, 60.0)
    assert (heard.rate, heard.channels) == (8000, 1)
    np.testing.assert_allclose(decoded / 32768, heard_by_ffmpeg(data)[:, 0], atol=1e-4)
    spectrum = np.abs(np.fft.rfft(decoded[4000:12000]))
    assert abs(spectrum.argmax() - 440) <= 1


@pytest.mark.parametrize("kind", ["AIFF", "CAF", "W64", "AU"])
def test_uncompressed_files_of_other_systems_come_back_exactly(kind):
    samples = np.array([0, 1, -1, 32767, -32768, 12345] * 100, np.int16)
    np.testing.assert_array_equal(
        decode(encoded(samples, kind=kind, subtype="PCM_16"), RATE, 1.0), samples
    )


@pytest.mark.parametrize("kind", ["AIFF", "CAF", "W64", "AU"])
@pytest.mark.parametrize("share", [0.3, 0.8])
def test_uncompressed_files_of_other_systems_tell_what_is_cut_off(kind, share):
    data = encoded(noise(3 * RATE), kind=kind, subtype="PCM_16")
    with pytest.raises(BadClip) as caught:
        decode(data[: int(share * len(data))], RATE, 60.0)
    assert caught.value.reason == "truncated"


@pytest.mark.parametrize(
    ("kind", "codec", "options"),
    [
        ("mp4", "aac", {"movflags": "faststart"}),
        ("mp4", "aac", {"movflags": "frag_keyframe+empty_moov"}),
        ("mp4", "aac", {}),
        ("webm", "libopus", {}),
        ("asf", "wmav2", {}),
        ("avi", "pcm_s16le", {}),
        ("avi", "libmp3lame", {}),
        ("flv", "aac", {}),
        ("tta", "tta", {}),
        ("wv", "wavpack", {}),
    ],
)
@pytest.mark.parametrize("share", [0.5, 0.8])
def test_compressed_files_cut_short_are_truncated(kind, codec, options, share):
    data = by_ffmpeg(tone(4.0, 48000), 48000, kind, codec, **options)
    with pytest.raises(BadClip) as caught:
        decode(data[: int(share * len(data))], RATE, 60.0)
    assert caught.value.reason == "truncated"


@pytest.mark.parametrize(("kind", "codec"), [("webm", "libopus"), ("matroska", "aac")])
def test_sound_that_begins_later_than_its_file_is_whole(kind, codec):
    late = by_ffmpeg(tone(4.0, 48000), 48000, kind, codec, start=2.0)
    decoded, heard = decode_heard(late, RATE, 60.0)
    assert (heard.lost, heard.damage) == (0.0, "")
    assert len(decoded) == pytest.approx(4 * RATE, abs=0.1 * RATE)
    with pytest.raises(BadClip, match=r"truncated: [12]\.\d\d of 4\.\d\d s are lost"):
        decode(late[: 6 * len(late) // 10], RATE, 60.0)


def test_a_variable_mp3_without_its_count_of_frames_is_whole():
    loud_then_quiet = np.concatenate([noise(4 * 44100)[:, 0], np.zeros(8 * 44100)])
    data = by_ffmpeg(loud_then_quiet, 44100, "mp3", "libmp3lame", None, write_xing="0")
    assert abs(len(soundfile.read(io.BytesIO(data))[0]) / 44100 - 12) > 1
    decoded, heard = decode_heard(data, 44100, 60.0)
    assert heard.seconds == pytest.approx(12.0, abs=0.1)
    np.testing.assert_allclose(decoded / 32768, heard_by_ffmpeg(data)[:, 0], atol=1e-4)


@pytest.mark.parametrize("kind", ["matroska", "avi"])
def test_a_tag_in_a_code_page_does_not_hide_the_sound(kind):
    data = by_ffmpeg(tone(2.0, 44100), 44100, kind, "libmp3lame")
    tagged = data.replace(b"Lavf", b"M\xfcll")
    assert tagged != data
    np.testing.assert_array_equal(decode(tagged, RATE, 60.0), decode(data, RATE, 60.0))


@pytest.mark.parametrize("channels", [1, 2])
def test_a_wav_of_integers_of_64_bits_comes_back(channels):
    samples = noise(1000, channels)
    values = (samples.astype(np.float64) * 2.0**63).astype("<i8").tobytes()
    size = 8 * channels
    head = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", len(values) + 36, b"WAVE", b"fmt ", 16, 1,
                       channels, RATE, RATE * size, size, 64)  # fmt: skip
    data = head + struct.pack("<4sI", b"data", len(values)) + values
    np.testing.assert_array_equal(
        decode(data, RATE, 60.0), decode(encoded(samples, subtype="FLOAT"), RATE, 60.0)
    )


@pytest.mark.parametrize("error", [ValueError("an odd layout"), ZeroDivisionError("an odd layout")])
def test_whatever_a_library_raises_of_a_file_is_a_reason(error, monkeypatch):
    def failing(frame):
        raise error

    data = by_ffmpeg(tone(1.0, RATE), RATE, "mp4", "aac")
    monkeypatch.setattr("unfused.audio.libav._samples", failing)
    with pytest.raises(BadClip, match="damaged: an odd layout"):
        decode(data, RATE, 60.0)


def test_a_picture_and_a_list_of_further_files_are_not_audio():
    png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x08\0\0\0\0\x3a\x7e\x9b\x55"
    for data in (png + bytes(1000), b"#EXTM3U\n#EXTINF:1,\n/etc/hostname\n" * 20):
        with pytest.raises(BadClip) as caught:
            decode(data, RATE, 60.0)
        assert caught.value.reason == "not audio"
