"""Sums of log-mel values, by which they are normalised, in NumPy.

What ingest's tasks gather: a process that imports torch for this alone holds half a gigabyte more
and starts two seconds later. The values are those of `frontend.LogMel`, to rounding.

Axes: S samples, T frames, F mel bands, K = n_fft // 2 + 1 frequencies.
"""

from __future__ import annotations

import numpy as np

from unfused.audio.samples import INT16_SCALE
from unfused.config import AudioConfig

PIECE_SECONDS = 30.0
"""Of a clip that are transformed at a time."""
LOG_FLOOR = 1e-6
"""As in `frontend`."""


class LogMelSums:
    """Running sums of log-mel values over whole clips, without padding.

    Args:
        audio: the front end's settings.
    """

    def __init__(self, audio: AudioConfig) -> None:
        self._audio = audio
        turns = np.arange(audio.n_fft) / audio.n_fft
        self._window = (0.5 - 0.5 * np.cos(2 * np.pi * turns)).astype(np.float32)
        self._filters = mel_filters(audio).astype(np.float32)
        self._piece = int(PIECE_SECONDS * audio.sample_rate)
        self._count, self._sum, self._squares = 0, 0.0, 0.0

    def add(self, samples: np.ndarray) -> None:
        """The values of a clip, int16 (S,)."""
        for piece in np.array_split(samples, max(1, len(samples) // self._piece)):
            values = self._log_mel(piece).astype(np.float64)
            self._count += values.size
            self._sum += float(values.sum())
            self._squares += float(np.square(values).sum())

    def _log_mel(self, samples: np.ndarray) -> np.ndarray:
        """(T, F) of int16 (S,): centred, zero-padded windows."""
        wave = np.pad(samples.astype(np.float32) * np.float32(INT16_SCALE), self._audio.n_fft // 2)
        windows = np.lib.stride_tricks.sliding_window_view(wave, self._audio.n_fft)
        spectrum = np.fft.rfft(windows[:: self._audio.hop_length] * self._window)
        power = np.square(spectrum.real) + np.square(spectrum.imag)
        return np.log(power @ self._filters + np.float32(LOG_FLOOR))

    def totals(self) -> dict[str, float]:
        """`count`, `sum` and `sum_of_squares`."""
        return {"count": self._count, "sum": self._sum, "sum_of_squares": self._squares}


def mel_filters(audio: AudioConfig) -> np.ndarray:
    """Slaney's triangles with his area normalisation: (K, F), a column for each band."""
    low, high = _to_mel(np.array([audio.f_min, audio.f_max]))
    edges = _to_hz(np.linspace(low, high, audio.n_mels + 2))
    frequencies = np.linspace(0, audio.sample_rate // 2, audio.n_fft // 2 + 1)
    rising = (frequencies[:, None] - edges[:-2]) / np.diff(edges)[:-1]
    falling = (edges[2:] - frequencies[:, None]) / np.diff(edges)[1:]
    return np.maximum(0, np.minimum(rising, falling)) * 2 / (edges[2:] - edges[:-2])


HZ_OF_MEL = 200 / 3
"""Width of a mel below 1000 Hz; above that they grow by 6.4 in 27."""
LINEAR_MELS = 15
LOG_STEP = np.log(6.4) / 27


def _to_mel(hertz: np.ndarray) -> np.ndarray:
    above = LINEAR_MELS + np.log(np.maximum(hertz, 1e-9) / 1000) / LOG_STEP
    return np.where(hertz < 1000, hertz / HZ_OF_MEL, above)


def _to_hz(mels: np.ndarray) -> np.ndarray:
    above = 1000 * np.exp(LOG_STEP * (mels - LINEAR_MELS))
    return np.where(mels < LINEAR_MELS, mels * HZ_OF_MEL, above)
