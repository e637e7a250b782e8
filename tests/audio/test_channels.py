"""Several channels become one that holds what was recorded."""

from __future__ import annotations

import numpy as np
import pytest
from sounds import RATE, encoded, noise, tone

from unfused.audio.channels import mono
from unfused.audio.decode import Grid, Parts, decode, decode_heard


def stereo(*channels: np.ndarray) -> bytes:
    return encoded(np.stack(channels, axis=1), subtype="FLOAT")


def test_of_two_channels_that_cancel_the_louder_is_taken_and_told():
    loud, inverted = tone(), -0.9 * tone()
    decoded, heard = decode_heard(stereo(inverted, loud), RATE, 1.0)
    assert heard.mixed.cancelled
    np.testing.assert_allclose(decoded, loud * 32768, atol=0.51)


def test_a_constant_offset_does_not_hide_that_channels_cancel():
    decoded, heard = decode_heard(stereo(tone() + 0.2, 0.2 - tone()), RATE, 1.0)
    assert heard.mixed.cancelled
    np.testing.assert_allclose(decoded, (tone() + 0.2) * 32768, atol=0.51)


@pytest.mark.parametrize("other", [tone(), 0 * tone(), -0.5 * tone(), noise()[:, 0]])
def test_channels_that_do_not_cancel_are_averaged(other):
    decoded, heard = decode_heard(stereo(tone(), other), RATE, 1.0)
    assert not heard.mixed.cancelled
    np.testing.assert_allclose(decoded, (tone() + other) / 2 * 32768, atol=0.51)


def test_silence_cancels_nothing():
    assert not decode_heard(stereo(0 * tone(), 0 * tone()), RATE, 1.0)[1].mixed.cancelled


@pytest.mark.parametrize(("channel", "taken"), [("left", 0), ("right", 1), ("loudest", 2)])
def test_one_channel_can_be_asked_for(channel, taken):
    channels = [0.1 * tone(), 0.5 * tone(), -0.9 * tone()]
    decoded = decode(stereo(*channels), RATE, 1.0, channel)
    np.testing.assert_allclose(decoded, channels[taken] * 32768, atol=0.51)


@pytest.mark.parametrize("channel", ["mean", "left", "right", "loudest"])
def test_a_mono_recording_has_one_channel_whatever_is_asked_for(channel):
    data = stereo(tone())
    np.testing.assert_array_equal(decode(data, RATE, 1.0, channel), decode(data, RATE, 1.0))


def test_parts_of_a_recording_decide_for_themselves_whether_channels_cancel():
    left, right = np.tile(tone(), 2), np.concatenate([tone(), -tone()])
    parts = Parts(stereo(left, right), RATE, Grid(1.0))
    first, second = parts
    assert parts.heard.mixed.cancelled
    for part in (first, second):
        np.testing.assert_allclose(part.samples, tone() * 32768, atol=0.51)


@pytest.mark.parametrize("channel", ["mean", "loudest"])
def test_of_channels_that_are_as_loud_as_each_other_the_first_is_taken(channel):
    """Whichever way their powers are rounded, which depends on where samples lie in memory."""
    wave = noise()[:, 0].astype(np.float32)
    quieter = wave * np.float32(1 - 1e-7)
    for first, second in ((wave, -quieter), (-quieter, wave)):
        taken, _ = mono([np.stack([first, second], 1)], channel)
        np.testing.assert_array_equal(taken, first)
