"""A model that is loaded: audio in, labels out.

The rule of this file: what it says of a clip is what the run's evaluation says of it.

Axes: B clips, S samples, N classes, D embedding, W windows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unfused import scorers
from unfused.config import ConfigError
from unfused.inference.folder import CLASSIFIER, damaged, read_facts
from unfused.inference.hearing import Audio, File, Hearing, known, name_of, taken
from unfused.inference.prediction import Prediction, Segment
from unfused.inference.timeline import Grid, TimelineConfig, segments
from unfused.store import Folder, Kept

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from unfused.scorers import Scorer

LONG = 4.0
"""A recording of so many times the longest training clip is looked at in windows."""
BLOCK_SECONDS = 60.0
"""Of sound that is scored at a time."""

BROKEN = (ValueError, LookupError, TypeError, AttributeError, IsADirectoryError)
"""What files say that are not those of a classifier."""


class Model:
    """A classifier of audio.

    Args:
        folder: of the model (see `inference.folder`).
        device: "cpu" or "cuda"; by default a GPU where there is one.
        max_seconds: longer files are refused.
        max_samples: files of more samples (frames x channels) are refused.

    Raises:
        ConfigError: there is no model, or no such device.
    """

    def __init__(
        self,
        folder: Folder,
        device: str | None = None,
        max_seconds: float = math.inf,
        max_samples: float = math.inf,
    ) -> None:
        self.folder = Kept.at(folder)
        self.facts = read_facts(self.folder)
        self.hearing = Hearing(
            self.facts.sample_rate, max_seconds, self.facts.channel, max_samples
        )
        self.device = _device(device)
        self._scorer = self._load().to(self.device)

    def _load(self) -> Scorer:
        from safetensors import SafetensorError

        try:
            return scorers.load(self.folder / CLASSIFIER, self.facts.scorer)
        except ConfigError:
            raise
        except (FileNotFoundError, *BROKEN, SafetensorError) as error:
            raise damaged(self.folder, f"/{CLASSIFIER}") from error

    @property
    def classes(self) -> list[str]:
        """The label map, in the order of probabilities."""
        return self.facts.classes

    def predict(self, audio: Audio, rate: int | None = None) -> Prediction:
        """The label of one clip.

        Args:
            audio: a path, bytes or samples (see `hearing.Audio`); of several channels is taken what
                training took (`ModelFacts.channel`).
            rate: Hz of samples, 1000 to 10 million; a file states its own.

        Raises:
            ValueError: samples without a rate, none at all, or one that is no number.
            BadClip: the file cannot be read.
        """
        path, digest, audio = "", "", taken(audio)
        if not isinstance(audio, np.ndarray):
            path = name_of(audio)
            digest, audio = known(audio)
        wave = self.wave(audio, rate)
        return self.prediction(wave, self.probabilities([wave])[0], path, digest)

    def predict_all(self, clips: Sequence[File]) -> pd.DataFrame:
        """The labels of files or their bytes, a row each: see `inference.tables.row`.

        What cannot be read has its reason in the place of a label.

        Raises:
            ValueError: one file in place of a list, or a clip that is none, as samples are, whose
                rate nothing says.
        """
        from unfused.inference.files import Looking, predicted
        from unfused.inference.tables import frame

        return frame(self.classes, predicted(self, _files(clips), Looking(whole=True)))

    def timeline(
        self,
        audio: Audio,
        rate: int | None = None,
        config: TimelineConfig | None = None,
        **settings: float,
    ) -> list[Segment]:
        """The segments of a recording of any length that have a label.

        Args:
            audio: as `predict` takes it.
            rate: likewise.
            config: windows and thresholds.
            settings: in the place of `config`, those of `TimelineConfig` that are others, as in
                `threshold=0.3`.

        Raises:
            BadClip: the file cannot be read, or not to its end.
            ConfigError: a setting is out of its range.
        """
        stretches = self.hearing.stretches(audio, self.stretch_seconds, rate)
        return list(self.segments(stretches, replace(config or TimelineConfig(), **settings)))

    def embed(self, audio: Audio, rate: int | None = None) -> Mapping[str, np.ndarray]:
        """The vectors (D,) that a clip is judged by, by what gives them.

        Args:
            audio: as `predict` takes it.
            rate: likewise.
        """
        found = self.embeddings([self.wave(audio, rate)])
        return {name: rows[0] for name, rows in found.items()}

    def wave(self, audio: Audio, rate: int | None = None) -> np.ndarray:
        """Audio as the model is given it: int16 (S,) at its own rate; see `Hearing.wave`."""
        return self.hearing.wave(audio, rate)

    def probabilities(self, waves: Sequence[np.ndarray]) -> np.ndarray:
        """Int16 clips (S,), B of them, each of its own length, to (B, N)."""
        blocks = []
        for some in self._blocks(waves):
            given = scorers.given(self.facts.scorer, some, self.device)
            blocks.append(self._scorer.scores(given)[0].float().softmax(1).cpu().numpy())
        return np.concatenate(blocks)

    def embeddings(self, waves: Sequence[np.ndarray]) -> Mapping[str, np.ndarray]:
        """Int16 clips (S,), B of them, to what they are judged by: (B, D) by what gives it."""
        blocks = []
        for some in self._blocks(waves):
            given = scorers.given(self.facts.scorer, some, self.device)
            rows = self._scorer.embeddings(given)
            blocks.append({name: one.float().cpu().numpy() for name, one in rows.items()})
        return {name: np.concatenate([one[name] for one in blocks]) for name in blocks[0]}

    def _blocks(self, waves: Sequence[np.ndarray]) -> Iterator[Sequence[np.ndarray]]:
        """Clips in order, as many at a time as are short enough together."""
        most, first, total = BLOCK_SECONDS * self.facts.sample_rate, 0, 0
        for number, wave in enumerate(waves):
            if total and total + len(wave) > most:
                yield waves[first:number]
                first, total = number, 0
            total += len(wave)
        yield waves[first:]

    def is_long(self, wave: np.ndarray) -> bool:
        """Whether a recording is one to look for clips in, rather than a clip."""
        return len(wave) > LONG * self.facts.durations[-1] * self.facts.sample_rate

    @property
    def stretch_seconds(self) -> float:
        """Of a recording that are decoded at a time. The first of several stretches is long by
        itself, though resampling holds a little of it back."""
        return max(BLOCK_SECONDS, LONG * self.facts.durations[-1] + 1.0)

    def segments(
        self, stretches: Iterable[np.ndarray], config: TimelineConfig
    ) -> Iterator[Segment]:
        """The segments of a recording at the model's rate: int16 (S,), one after the other."""
        rate, length = self.facts.sample_rate, 0
        grid = Grid.of(rate, config, self.facts.durations[2])

        def measured() -> Iterator[np.ndarray]:
            nonlocal length
            for stretch in stretches:
                length += len(stretch)
                yield stretch

        found = [self.probabilities(some) for some in grid.windows(measured()) if some]
        edges, steps = grid.on_steps(np.concatenate(found), length)
        least = config.min_seconds * rate
        for begin, end, label, mean in segments(edges, steps, config.threshold, least):
            yield Segment(begin / rate, end / rate, self.classes[label], self._by_class(mean))

    def prediction(
        self, wave: np.ndarray, probabilities: np.ndarray, path: str, digest: str
    ) -> Prediction:
        """What `probabilities` (N,) say of a clip."""
        label = self.classes[int(probabilities.argmax())]
        seconds = len(wave) / self.facts.sample_rate
        return Prediction(0.0, seconds, label, self._by_class(probabilities), path, digest)

    def _by_class(self, probabilities: np.ndarray) -> dict[str, float]:
        return dict(zip(self.classes, probabilities.tolist(), strict=True))

    def __repr__(self) -> str:
        facts = self.facts
        return f"<Model {facts.name}: {facts.arm}, {len(facts.classes)} classes>"


def _device(name: str | None) -> torch.device:
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    known = ["cpu", "cuda", *(f"cuda:{number}" for number in range(gpus))] if gpus else ["cpu"]
    if name is not None and str(name) not in known:
        raise ConfigError(f"There is no device {name!r} here; there is {', '.join(known)}.")
    return torch.device(name or ("cuda" if gpus else "cpu"))


def _files(clips: Iterable[File]) -> list[File]:
    """Clips, of which each is a file.

    Raises:
        ValueError: they are no list, or one is no file.
    """
    if isinstance(clips, File) or not isinstance(clips, Iterable):
        kind = type(clips).__name__
        raise ValueError(f"Got {kind} for a list of files; give [file], or one file to `predict`.")
    listed = list(clips)
    for number, one in enumerate(listed):
        if not isinstance(one, File):
            raise ValueError(
                f"Clip {number} is {type(one).__name__}, and paths or bytes of files are taken, for"
                " nothing says at which rate samples are; give each to `predict`."
            )
    return listed


def load(place: str | PathLike, device: str | None = None) -> Model:
    """The model in a folder, or behind s3:// or gs://.

    Args:
        place: the model's folder (a run prints it, and has it in its store).
        device: "cpu" or "cuda"; by default a GPU where there is one.

    Raises:
        ConfigError: there is no model, or no such device.
    """
    if not str(place).strip():
        raise ConfigError("The name of the model's folder is empty; say where it lies.")
    return Model(Folder.of(place if "://" in str(place) else Path(place)), device)
