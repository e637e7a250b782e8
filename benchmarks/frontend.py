"""Front end on one core: files to log-mel, against the per-clip path (librosa in a DataLoader).

    python benchmarks/frontend.py --num-clips 256 --sample-rates 8000 44100

A training run reads its clips once for every epoch. The per-clip path pays for decoding and
resampling each time; here they belong to ingest and are paid once. So the figure that counts is
that of a whole run of `epochs`; the single pass stands beside it.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import harness
import numpy as np
import peers
import soundfile
import torch

from unfused import cores
from unfused.audio.decode import decode
from unfused.audio.frontend import to_float
from unfused.audio.samples import crop_or_pad
from unfused.models.clip_encoder import log_mel

AUDIO = peers.AUDIO


@dataclass(frozen=True)
class Sizes:
    num_clips: int = 256
    seconds: float = 1.0
    sample_rates: tuple[int, ...] = (8000, 16000, 44100)
    epochs: int = 12
    repetitions: int = 5


def write_clips(folder: Path, count: int, seconds: float, rate: int) -> list[Path]:
    """Noisy chirps as 16-bit WAV files."""
    rng, paths = np.random.default_rng(0), []
    t = np.arange(round(seconds * rate)) / rate
    for number in range(count):
        low, high, level = rng.uniform(80, 800), rng.uniform(800, 3500), rng.uniform(0.05, 0.5)
        wave = level * np.sin(2 * np.pi * (low * t + (high - low) * t**2 / (2 * seconds)))
        wave += 0.01 * rng.standard_normal(len(t))
        paths.append(folder / f"{number}.wav")
        soundfile.write(paths[-1], wave.astype(np.float32), rate, subtype="PCM_16")
    return paths


class Platform:
    """What ingest and a training step do with the same files."""

    def __init__(self, paths: list[Path], num_samples: int, batch_size: int = 64) -> None:
        self.paths, self.num_samples, self.batch_size = paths, num_samples, batch_size
        self.mel = log_mel(AUDIO)
        self.waves = np.empty(0)

    def ingest(self) -> None:
        """Decode and resample all clips."""
        clips = (decode(p.read_bytes(), AUDIO.sample_rate, 600.0) for p in self.paths)
        self.waves = np.stack([crop_or_pad(clip, self.num_samples, 0) for clip in clips])

    def epoch(self) -> None:
        """Log-mel of all clips in batches."""
        for rows in torch.from_numpy(self.waves).split(self.batch_size):
            self.mel(rows)

    def run(self, epochs: int) -> None:
        self.ingest()
        for _ in range(epochs):
            self.epoch()


def measure(sizes: Sizes) -> harness.Report:
    cores.prepare_process(threads=1)
    rows, aims, notes = [], [], []
    for sample_rate in sizes.sample_rates:
        with tempfile.TemporaryDirectory() as folder:
            paths = write_clips(Path(folder), sizes.num_clips, sizes.seconds, sample_rate)
            num_samples = round(sizes.seconds * AUDIO.sample_rate)
            platform = Platform(paths, num_samples)
            found = _race(platform, sizes)
            apart, off, theirs_off = _differences(platform)
            operations = harness.operations(platform.epoch)
        single = harness.ratio(found, "decode, resample, log-mel once", "per clip")
        whole = harness.ratio(found, "run", "per clip")
        rows.append(
            [
                f"{sample_rate} Hz",
                *(harness.spread(values) for values in found.values()),
                f"{single:.1f}",
                f"{whole:.1f}",
                f"{apart:.1e}",
            ]
        )
        aims += [
            harness.Aim(f"{sizes.epochs} epochs from {sample_rate} Hz files, ratio", whole, 8.0),
            harness.Aim(f"largest difference, {sample_rate} Hz", apart, 1e-4, at_most=True),
        ]
        notes += [
            f"{sample_rate} Hz, largest difference from the same in float64: {off:.1e} here,"
            f" {theirs_off:.1e} in the per-clip path",
            f"{sample_rate} Hz, log-mel's time by operation: {operations}",
        ]
    return harness.Report(
        "Front end, clips/s on one core",
        [
            "files",
            "per-clip path",
            "decode, resample, log-mel once",
            "log-mel alone",
            f"run of {sizes.epochs} epochs, clips x epochs/s",
            "ratio, once",
            "ratio, run",
            "largest difference of log-mel",
        ],
        rows,
        aims,
        [
            f"clips of {sizes.seconds:g} s; the difference is between log-mels of the same samples",
            *notes,
        ],
    )


def _race(platform: Platform, sizes: Sizes) -> dict[str, list[float]]:
    count = sizes.num_clips
    platform.ingest()
    platform.epoch()
    peers.per_clip_epoch(platform.paths[:8], platform.num_samples, 8)
    return harness.alternate(
        {
            "per clip": lambda: harness.rate(
                count, lambda: peers.per_clip_epoch(platform.paths, platform.num_samples, 64)
            ),
            "decode, resample, log-mel once": lambda: harness.rate(count, lambda: platform.run(1)),
            "log-mel": lambda: harness.rate(count, platform.epoch),
            "run": lambda: harness.rate(count * sizes.epochs, lambda: platform.run(sizes.epochs)),
        },
        sizes.repetitions,
    )


def _differences(platform: Platform) -> tuple[float, float, float]:
    """Largest differences between log-mels of the same samples.

    The two paths from each other, and each of the two from what float64 gives.
    """
    waves = to_float(torch.from_numpy(platform.waves[:32]))
    mine = platform.mel(waves).numpy()
    theirs = np.stack([peers.per_clip_log_mel(wave) for wave in waves.numpy()])
    exact = np.stack([peers.per_clip_log_mel(wave) for wave in waves.double().numpy()])
    pairs = ((mine, theirs), (mine, exact), (theirs, exact))
    one, two, three = (float(np.abs(a - b).max()) for a, b in pairs)
    return one, two, three


if __name__ == "__main__":
    harness.main("frontend", Sizes(), measure)
