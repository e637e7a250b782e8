"""Headers that are off by a little, chains of Ogg files, and what is really lost."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from sounds import (
    RATE,
    by_ffmpeg,
    claiming,
    encoded,
    heard_by_ffmpeg,
    noise,
    pages,
    patched,
    tone,
    unended,
    with_frames,
)

from unfused.audio import flac
from unfused.audio.decode import BadClip, Parts, decode, decode_heard
from unfused.audio.reading import Reading


def samples_of(data: bytes, rate: int = RATE) -> np.ndarray:
    decoded, heard = decode_heard(data, rate, 600.0)
    assert heard.damage == "" and heard.lost == 0.0
    return decoded


@pytest.mark.parametrize("extra", [1, 8, 36, 44, 512, 4096])
def test_a_wav_that_claims_a_little_more_than_there_is_is_whole(extra):
    data = encoded(noise())
    over = claiming(data, 2 * RATE + extra)
    np.testing.assert_array_equal(samples_of(over), decode(data, RATE, 600.0))
    expected = heard_by_ffmpeg(over)[:, 0] * 32768
    np.testing.assert_array_equal(samples_of(over), expected)


@pytest.mark.parametrize("missing", [44, 1000, 20000])
def test_a_wav_that_claims_less_than_there_is_goes_on_to_the_end(missing):
    data = encoded(noise())
    under = claiming(data, 2 * RATE - missing)
    expected = heard_by_ffmpeg(under, ignore_length="1")[:, 0] * 32768
    assert len(expected) == RATE
    np.testing.assert_array_equal(samples_of(under), expected)


@pytest.mark.timeout(60)
def test_a_wav_of_more_than_four_gib_whose_size_began_anew_goes_on_to_the_end(tmp_path):
    rest = 4 * 48000
    head = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", rest + 36, b"WAVE", b"fmt ", 16, 1, 1, 48000,
                       96000, 2, 16) + struct.pack("<4sI", b"data", rest)  # fmt: skip
    with open(tmp_path / "night.wav", "wb+") as file:
        file.write(head)
        file.truncate(len(head) + 2**32 + rest)
        reading, frames = Reading(file), 0
        for block in reading.blocks():
            frames += len(block)
            if frames > rest:
                break
    assert (reading.rate, reading.channels) == (48000, 1) and frames > rest


def test_an_au_that_claims_less_than_there_is_goes_on_to_the_end():
    data = encoded(noise(), kind="AU")
    half = patched(data, 8, ">I", (len(data) - 24) // 2)
    np.testing.assert_array_equal(decode(half, RATE, 600.0), decode(data, RATE, 600.0))


@pytest.mark.parametrize("chunk", [b"LIST\x04\0\0\0INFO", b"LIST\xff\0\0\0INFO", bytes(2000)])
def test_chunks_and_padding_behind_the_samples_are_no_sound(chunk):
    data = encoded(noise())
    np.testing.assert_array_equal(samples_of(data + chunk), samples_of(data))


@pytest.mark.parametrize("kind", ["WAV", "RF64", "AIFF", "AU", "W64", "NIST", "VOC"])
def test_what_is_lost_is_told_in_seconds(kind):
    data = encoded(noise(3 * RATE), kind=kind, subtype="PCM_16")
    with pytest.raises(BadClip) as caught:
        decode(data[: -3 * RATE], RATE, 600.0)
    assert str(caught.value) == "truncated: 1.50 of 3.00 s are lost"


@pytest.mark.parametrize("kind", ["NIST", "VOC"])
@pytest.mark.parametrize("subtype", ["PCM_16", "ULAW"])
def test_a_sphere_and_a_voc_that_are_whole_are_whole(kind, subtype):
    wave = noise(RATE, channels=2)
    heard = samples_of(encoded(wave, kind=kind, subtype=subtype))
    np.testing.assert_array_equal(heard, samples_of(encoded(wave, subtype=subtype)))


def test_a_voc_of_many_blocks_is_told_where_it_is_cut():
    data = by_ffmpeg(tone(3.0), RATE, "voc", "pcm_u8")
    blocks = data[:-1] + b"\2" + (2 * RATE).to_bytes(3, "little") + bytes([128]) * 2 * RATE + b"\0"
    assert len(samples_of(blocks)) == pytest.approx(5 * RATE, rel=0.01)
    with pytest.raises(BadClip, match=r"truncated: 1\.51 of 5\.04 s are lost"):
        decode(blocks[: -3 * RATE // 2], RATE, 600.0)


def test_a_bw64_is_an_rf64_by_another_name():
    rf64 = encoded(noise(3 * RATE), kind="RF64", subtype="PCM_16")
    bw64 = b"BW64" + rf64[4:]
    np.testing.assert_array_equal(samples_of(bw64), samples_of(rf64))
    with pytest.raises(BadClip, match=r"truncated: 1\.50 of 3\.00 s are lost"):
        decode(bw64[: -3 * RATE], RATE, 600.0)
    untold = patched(bw64, bw64.index(b"ds64") + 8, "<QQQ", 0, 0, 0)
    np.testing.assert_array_equal(samples_of(untold), samples_of(rf64))


@pytest.mark.parametrize("subtype", ["ULAW", "GSM610", "IMA_ADPCM", "MS_ADPCM"])
def test_what_a_sector_holds_of_a_telephone_call_is_a_loss(subtype):
    data = encoded(tone(1.0, 8000), 8000, subtype=subtype)
    start = data.index(b"data") + 8
    assert len(samples_of(data[:-44], 8000)) == pytest.approx(8000, abs=700)
    with pytest.raises(BadClip, match=r"truncated: 0\.\d+ of 1\.\d+ s are lost"):
        decode(data[: (start + len(data)) // 2], 8000, 600.0)


@pytest.mark.parametrize("frames", [1, 3000, 12000, 15999])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_flac_that_claims_less_than_there_is_goes_on_to_the_end(frames, channels):
    data = encoded(np.repeat(noise(), channels, axis=1), kind="FLAC")
    short = with_frames(data, frames)
    np.testing.assert_array_equal(samples_of(short), samples_of(data))
    np.testing.assert_array_equal(heard_by_ffmpeg(short)[:, 0] * 32768, samples_of(data))


def test_the_last_frame_of_a_flac_says_how_long_it_is():
    for length in (1, 191, 192, 4095, 4096, 4097, 300_000):
        for rate in (8000, 11025, 16000, 44100):
            data = encoded(noise(length), kind="FLAC", rate=rate)
            claimed, block_size = flac.stated(data)
            assert flac.num_samples(data[-flac.LARGEST_FRAME :], block_size) == claimed == length
    assert flac.num_samples(b"\xff" * 100 + bytes(100), 4096) == 0


def test_a_flac_that_promises_a_sample_more_is_whole():
    data = encoded(noise(), kind="FLAC")
    more = data[:22] + struct.pack(">I", RATE + 1) + data[26:]
    np.testing.assert_array_equal(samples_of(more), samples_of(data))


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_an_ogg_whose_last_page_is_not_marked_as_the_end_is_whole(subtype):
    data = encoded(noise(3 * RATE), kind="OGG", subtype=subtype)
    assert unended(data) != data
    np.testing.assert_array_equal(samples_of(unended(data)), samples_of(data))


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_a_chained_ogg_gives_all_its_links(subtype):
    first, second = (
        encoded(tone(seconds), kind="OGG", subtype=subtype) for seconds in (2.0, 3.0)
    )
    expected = np.concatenate([samples_of(first), samples_of(second)])
    np.testing.assert_array_equal(samples_of(first + second), expected)
    rate = 48000 if subtype == "OPUS" else RATE
    assert len(heard_by_ffmpeg(first + second)) / rate == pytest.approx(5.0, abs=0.1)


def test_a_link_of_another_rate_and_stereo_is_brought_to_the_first_ones():
    wave = np.stack([tone(2.0, 48000)] * 2, axis=1)
    data = encoded(tone(1.0), kind="OGG") + encoded(wave, 48000, kind="OGG")
    decoded, heard = decode_heard(data, RATE, 600.0)
    assert (heard.rate, heard.channels, heard.seconds) == (RATE, 1, pytest.approx(3.0))
    alone = decode(encoded(wave, 48000, kind="OGG"), RATE, 600.0)
    np.testing.assert_allclose(decoded[RATE:], alone, atol=4)


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_parts_of_an_ogg_that_is_cut_are_those_that_are_there(subtype):
    data = encoded(noise(9 * RATE), kind="OGG", subtype=subtype)
    parts = Parts(data[: 2 * len(data) // 3], RATE, [(0.0, 4.0)])
    (part,) = parts
    np.testing.assert_array_equal(part.samples, samples_of(data)[: 4 * RATE])
    assert parts.heard.damage == "the last Ogg page is missing or cut"


def test_a_chain_whose_last_link_is_cut_is_truncated():
    first, second = encoded(tone(1.0), kind="OGG"), encoded(noise(3 * RATE), kind="OGG")
    with pytest.raises(BadClip, match="the last Ogg page is missing or cut"):
        decode(first + second[:-10], RATE, 600.0)


def test_streams_side_by_side_in_an_ogg_are_no_chain():
    first = pages(encoded(tone(2.0), kind="OGG"))
    second = pages(encoded(noise(3 * RATE, seed=1), kind="OGG"))
    mixed = first[:1] + second[:1] + first[1:] + second[1:]
    assert len(samples_of(b"".join(mixed))) == 2 * RATE


def test_an_ogg_with_a_damaged_page_in_the_middle_is_truncated():
    parts = pages(encoded(noise(6 * RATE), kind="OGG"))
    assert len(parts) > 6
    with pytest.raises(BadClip, match="truncated"):
        decode(b"".join(parts[:4]) + bytes(500) + b"".join(parts[5:]), RATE, 600.0)


@pytest.mark.parametrize("tag", [b"", b"TAG".ljust(128, b"\0")])
@pytest.mark.parametrize("options", [{}, {"write_xing": "0"}])
def test_mp3s_joined_to_one_are_all_heard(tag, options):
    first = encoded(tone(2.0, 44100), 44100, kind="MP3")
    second = by_ffmpeg(tone(3.0, 44100), 44100, "mp3", "libmp3lame", **options)
    expected = np.concatenate([samples_of(part, 44100) for part in (first, first, second)])
    joined = first + tag + first + tag + second
    np.testing.assert_array_equal(samples_of(joined, 44100), expected)
    assert len(expected) / 44100 == pytest.approx(7.0, abs=0.1)


def test_mp3s_joined_to_one_whose_last_is_cut_are_truncated():
    data = encoded(noise(2 * RATE), kind="MP3")
    with pytest.raises(BadClip, match=r"truncated: \d\.\d\d of 4\.\d\d s are lost"):
        decode(data + data[: len(data) // 2], RATE, 600.0)


def test_frames_that_an_mp3_does_not_count_are_heard_but_for_a_few():
    data = encoded(tone(2.0, 44100), 44100, kind="MP3")
    bare = by_ffmpeg(tone(1.0, 44100), 44100, "mp3", "libmp3lame", write_xing="0")
    length = len(bare) // 38
    alone = samples_of(data, 44100)
    np.testing.assert_array_equal(samples_of(data + bare[45 : 45 + 2 * length], 44100), alone)
    assert len(samples_of(data + bare, 44100)) > 2.9 * 44100


def test_an_mp3_inside_a_wav_is_whole():
    data = by_ffmpeg(tone(3.0, 44100), 44100, "wav", "libmp3lame")
    assert len(samples_of(data, 44100)) == pytest.approx(3 * 44100, abs=2500)
