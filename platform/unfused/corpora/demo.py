"""The embedded demo corpus: generated sounds whose classes differ in structure alone.

The rule of this file: everything follows from the seed, and pitch, timbre, rate, level, onset,
duration and noise floor vary alike in every class, so that a mean spectrum does not tell them
apart.

Axes: S samples.
"""

from __future__ import annotations

import csv
import tempfile
import wave
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from pyarrow import fs

from unfused.corpora import location
from unfused.store import Folder

VERSION = 2
"""Goes up when the sounds change: another version is another corpus."""

MANIFESTS = ("corpus.csv", "task.csv")
SAMPLE_RATE = 16000
SPLIT_SIZES = {"train": 48, "valid": 12, "test": 24}
CORPUS_SIZE = 1200
"""More than the 1024 prototypes of the published method."""
MIXED_SHARE = 0.25
"""Share of the corpus in which two sounds overlap."""

TIMBRES = ((1, 2, 3, 4, 5), (1, 3, 5, 7))
"""Numbers of the partials of a full and of a hollow tone."""

Rng = np.random.Generator


def write(
    place: str | Path, seed: int = 0, instead: str | Path | None = None
) -> tuple[str, str]:
    """Write the demo corpus below a folder or URI, unless it is there already.

    Args:
        place: the folder.
        seed: of all sounds.
        instead: another folder to write to, where it is not there yet.

    Returns:
        `corpus.csv` (1,200 clips, no labels) and `task.csv` (8 classes, each with 48 train,
        12 valid and 24 test clips), of about a second of 16 kHz int16 WAV.
    """
    home = _home(place, seed)
    if instead is not None and not home.exists(MANIFESTS[-1]):
        home = _home(instead, seed)
    if not home.exists(MANIFESTS[-1]):
        with tempfile.TemporaryDirectory() as made:
            draft = Path(made)
            (draft / "clips").mkdir()
            _write_corpus(draft, seed)
            _write_task(draft, seed)
            _publish(draft, home)
    corpus, task = (location.join(home.uri, name) for name in MANIFESTS)
    return corpus, task


def _home(place: str | Path, seed: int) -> Folder:
    return Folder(location.join(location.absolute(str(place)), f"v{VERSION}-seed{seed}"))


def _publish(draft: Path, home: Folder) -> None:
    """Half a corpus is never seen: the task's manifest, which is looked for, comes last.

    Another writer may be at it too; its bytes are the same.
    """
    clips = home / "clips"
    clips.filesystem.create_dir(clips.path, recursive=True)
    fs.copy_files(
        str(draft / "clips"),
        clips.path,
        source_filesystem=fs.LocalFileSystem(),
        destination_filesystem=clips.filesystem,
    )
    for name in MANIFESTS:
        home.write(name, (draft / name).read_bytes())


def _write_corpus(home: Path, seed: int) -> None:
    rows = []
    for i in range(CORPUS_SIZE):
        rng = np.random.default_rng((seed, 0, i))
        num_sounds = 2 if rng.random() < MIXED_SHARE else 1
        names = rng.choice(sorted(SOUNDS), num_sounds, replace=False)
        rows.append((f"clips/corpus_{i:04d}.wav",))
        _write_wav(home / rows[-1][0], _clip(rng, [SOUNDS[name] for name in names]))
    _write_csv(home / "corpus.csv", ("path",), rows)


def _write_task(home: Path, seed: int) -> None:
    splits = [split for split, size in SPLIT_SIZES.items() for _ in range(size)]
    rows = []
    for c, (label, sound) in enumerate(sorted(SOUNDS.items())):
        for i, split in enumerate(splits):
            rows.append((f"clips/{label}_{i:02d}.wav", label, split))
            _write_wav(home / rows[-1][0], _clip(np.random.default_rng((seed, 1 + c, i)), [sound]))
    _write_csv(home / "task.csv", ("path", "label", "split"), rows)


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def _write_wav(path: Path, samples: np.ndarray) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(samples.astype("<i2").tobytes())


def _clip(rng: Rng, sounds: Sequence[Sound]) -> np.ndarray:
    """Sounds at random places and levels above a noise floor of random colour: int16 (S,)."""
    size = int(SAMPLE_RATE * rng.uniform(0.95, 1.1))
    mix = np.zeros(size, np.float32)
    for sound in sounds:
        length = int(size * rng.uniform(0.6, 0.95))
        start = rng.integers(size - length + 1)
        mix[start : start + length] += _faded(sound(rng, np.arange(length, dtype=np.float32)))
    white = rng.random(size + 1, dtype=np.float32) - np.float32(0.5)
    noise = white[1:] + np.float32(rng.uniform(-0.9, 0.9)) * white[:-1]
    mix += noise * (_rms(mix) / _rms(noise) * _gain(rng, -36, -18))
    return np.rint(mix * (32767 * _gain(rng, -24, -1) / np.abs(mix).max())).astype(np.int16)


def _faded(sound: np.ndarray) -> np.ndarray:
    """Unit level, without clicks at the ends."""
    ramp = np.linspace(0, 1, SAMPLE_RATE // 50, dtype=np.float32)
    sound[: len(ramp)] *= ramp
    sound[-len(ramp) :] *= ramp[::-1]
    return sound / _rms(sound)


def _rms(samples: np.ndarray) -> np.float32:
    return np.sqrt(np.mean(np.square(samples)))


def _gain(rng: Rng, low: float, high: float) -> np.float32:
    """A factor drawn uniformly in decibels."""
    return np.float32(10 ** (rng.uniform(low, high) / 20))


def _tone(rng: Rng, cycles: np.ndarray, partials: Sequence[int] = ()) -> np.ndarray:
    """Partials of random strength above a phase given in cycles: (S,) to (S,)."""
    numbers = partials or TIMBRES[rng.integers(2)]
    strength = dict.fromkeys(range(max(numbers) + 1), np.float32(0))
    slope = rng.uniform(0.3, 1.5)
    strength |= {k: np.float32(k**-slope * rng.uniform(0.6, 1.4)) for k in numbers}
    phase = (2 * np.pi * (cycles % 1)).astype(np.float32)
    below, partial, twice = np.zeros_like(phase), np.sin(phase), 2 * np.cos(phase)
    total = strength[1] * partial
    for k in range(2, max(numbers) + 1):
        # sin kx = 2 cos x sin (k-1)x - sin (k-2)x: two sines instead of one for each partial.
        below, partial = partial, twice * partial - below
        total += strength[k] * partial
    return total


def _pitch(rng: Rng) -> float:
    """200 to 600 Hz: the highest partial of the steepest glide stays below 8 kHz."""
    return float(200 * 3 ** rng.random())


def _beat(rng: Rng, t: np.ndarray) -> np.ndarray:
    """A slow sine, 4 to 12 Hz: (S,) to (S,)."""
    rate, start = rng.uniform(4, 12), rng.random()
    return np.sin(np.float32(2 * np.pi * rate / SAMPLE_RATE) * t + np.float32(2 * np.pi * start))


def _glide(rng: Rng, octaves: np.ndarray) -> np.ndarray:
    """A tone whose pitch follows a curve in octaves: (S,) to (S,)."""
    hertz = np.float32(_pitch(rng)) * np.exp2(octaves, dtype=np.float32)
    return _tone(rng, np.cumsum(hertz, dtype=np.float64) / SAMPLE_RATE)


def _steady(rng: Rng, t: np.ndarray, partials: Sequence[int] = ()) -> np.ndarray:
    return _tone(rng, t.astype(np.float64) * (_pitch(rng) / SAMPLE_RATE), partials)


def _rising(rng: Rng, t: np.ndarray) -> np.ndarray:
    return _glide(rng, np.float32(rng.uniform(0.7, 1.6)) * (t / len(t) - 0.5))


def _falling(rng: Rng, t: np.ndarray) -> np.ndarray:
    return _glide(rng, np.float32(rng.uniform(0.7, 1.6)) * (0.5 - t / len(t)))


def _vibrato(rng: Rng, t: np.ndarray) -> np.ndarray:
    return _glide(rng, np.float32(rng.uniform(0.25, 0.6)) * _beat(rng, t))


def _tremolo(rng: Rng, t: np.ndarray) -> np.ndarray:
    depth = np.float32(rng.uniform(0.8, 1.0))
    return _steady(rng, t) * (1 + depth * _beat(rng, t))


def _hollow(rng: Rng, t: np.ndarray) -> np.ndarray:
    return _steady(rng, t, TIMBRES[1])


def _full(rng: Rng, t: np.ndarray) -> np.ndarray:
    return _steady(rng, t, TIMBRES[0])


def _regular(rng: Rng, t: np.ndarray) -> np.ndarray:
    return _clicks(rng, t, jitter=0.0)


def _irregular(rng: Rng, t: np.ndarray) -> np.ndarray:
    return _clicks(rng, t, jitter=0.9)


def _clicks(rng: Rng, t: np.ndarray, jitter: float) -> np.ndarray:
    """One short ringing sound, 6 to 14 times a second; `jitter` in shares of the gap."""
    gap = SAMPLE_RATE / rng.uniform(6, 14)
    decay, ring = rng.uniform(0.004, 0.015) * SAMPLE_RATE, t[: SAMPLE_RATE // 20]
    click = _steady(rng, ring) * np.exp(-ring / np.float32(decay))
    places = np.arange(rng.random() * gap, len(t) - len(click), gap)
    places = places + jitter * gap * rng.uniform(-0.5, 0.5, len(places))
    sound = np.zeros(len(t), np.float32)
    for place in np.clip(places, 0, len(t) - len(click)).astype(int):
        sound[place : place + len(click)] += click
    return sound


Sound = Callable[[Rng, np.ndarray], np.ndarray]

SOUNDS: dict[str, Sound] = {
    "falling": _falling,
    "full": _full,
    "hollow": _hollow,
    "irregular": _irregular,
    "regular": _regular,
    "rising": _rising,
    "tremolo": _tremolo,
    "vibrato": _vibrato,
}
"""Class to generator: (rng, sample numbers (S,)) to a sound (S,)."""
