"""Audio files for tests: written by libsndfile or FFmpeg, then cut or changed byte by byte."""

from __future__ import annotations

import io
import struct
import tempfile
from pathlib import Path

import av
import numpy as np
import soundfile

RATE = 16000


def noise(frames: int = RATE, channels: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, (frames, channels)).astype(np.float32)


def tone(seconds: float = 1.0, rate: int = RATE) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)


def encoded(samples: np.ndarray, rate: int = RATE, kind: str = "WAV", subtype=None) -> bytes:
    sink = io.BytesIO()
    soundfile.write(sink, samples, rate, format=kind, subtype=subtype)
    return sink.getvalue()


def by_ffmpeg(
    samples: np.ndarray,
    rate: int,
    kind: str,
    codec: str,
    bits: int | None = 64000,
    start: float = 0.0,
    hole: tuple[float, float] = (0.0, 0.0),
    **options: str,
) -> bytes:
    """A file of samples (N,) or (N, 2), float in [-1, 1]; `bits` a second, None: variable.

    The samples begin at the time `start`; what lies in a `hole` is left out (both in seconds).
    """
    values = np.rint(samples.reshape(len(samples), -1) * 32767).astype(np.int16)
    layout = "mono" if values.shape[1] == 1 else "stereo"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sound"
        with av.open(str(path), "w", format=kind, options=options) as container:
            stream = container.add_stream(codec, rate=rate, layout=layout, options=options)
            if bits is None:
                stream.codec_context.qscale = True
                stream.codec_context.global_quality = 4 * 118
            else:
                stream.bit_rate = bits
            frame = av.AudioFrame.from_ndarray(values.reshape(1, -1), format="s16", layout=layout)
            frame.rate, frame.pts = rate, round(start * rate)
            for packet in [*stream.encode(frame), *stream.encode(None)]:
                if not hole[0] <= packet.pts * packet.time_base < hole[1]:
                    container.mux(packet)
        return path.read_bytes()


def heard_by_ffmpeg(data: bytes, **options: str) -> np.ndarray:
    """Float (N, C) of the first audio stream, as FFmpeg decodes it."""
    with av.open(io.BytesIO(data), options=options, metadata_errors="replace") as container:
        to_float = av.AudioResampler(format="flt")
        frames = [f for frame in container.decode(audio=0) for f in to_float.resample(frame)]
    channels = frames[0].layout.nb_channels
    return np.concatenate([frame.to_ndarray().reshape(-1, channels) for frame in frames])


def patched(data: bytes, at: int, kind: str, *values: int) -> bytes:
    return data[:at] + struct.pack(kind, *values) + data[at + struct.calcsize(kind) :]


def claiming(wav: bytes, size: int) -> bytes:
    """The same WAV with another size of its samples."""
    return patched(wav, wav.index(b"data") + 4, "<I", size)


def with_frames(flac: bytes, frames: int) -> bytes:
    """The same FLAC with another total in its STREAMINFO."""
    high = bytes([flac[21] & 0xF0 | frames >> 32])
    return flac[:21] + high + struct.pack(">I", frames & 0xFFFFFFFF) + flac[26:]


def pages(ogg: bytes) -> list[bytes]:
    starts = [at for at in range(len(ogg)) if ogg.startswith(b"OggS", at)]
    return [ogg[a:b] for a, b in zip(starts, [*starts[1:], len(ogg)], strict=True)]


def unended(ogg: bytes) -> bytes:
    """The same Ogg, whose last page does not say that it is the last."""
    *rest, last = pages(ogg)
    cleared = bytearray(last)
    cleared[5] &= ~4
    cleared[22:26] = bytes(4)
    cleared[22:26] = struct.pack("<I", _ogg_sum(bytes(cleared)))
    return b"".join(rest) + bytes(cleared)


def _ogg_sum(page: bytes) -> int:
    """CRC of RFC 3533: polynomial 0x04C11DB7, nothing reflected, from 0."""
    register = 0
    for byte in page:
        register ^= byte << 24
        for _ in range(8):
            register = register << 1 ^ (0x104C11DB7 if register & 0x80000000 else 0)
    return register
