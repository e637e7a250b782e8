"""What a model file takes and gives, from the shapes that it states and from a few calls.

The rule of this file: what cannot be told is asked for by the key of the JSON that settles it; it
is never guessed.

Axes as in `axes`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unfused.config import ConfigError
from unfused.teachers import axes
from unfused.teachers.description import Description
from unfused.teachers.place import Place
from unfused.teachers.protocol import LogMelFacts, TeacherFacts

Shape = Sequence[int | None]
"""None is a size that may change."""
Call = Callable[[np.ndarray], np.ndarray]
"""The model, from its input to the output that is read; raises what it likes on a wrong size."""
BANDS = range(16, 257, 8)
"""Mel bands that an input may have."""
SHORTEST_SECONDS, LONGEST_SECONDS = 0.01, 32.0
"""Where the shortest clip that a model takes is looked for."""
NOISE = 1000.0
"""Deviation of the int16 noise that a model is called with."""


@dataclass(frozen=True)
class Signature:
    """A model under examination."""

    call: Call
    shape: Shape
    """Of the input."""
    said: Description
    place: Place

    def understand(self, facts: TeacherFacts) -> TeacherFacts:
        """All that can be told of a model; `facts` has what was known before.

        Raises:
            ConfigError: something cannot; it names the key that settles it.
        """
        facts = self._input(facts)
        window = self._window(facts)
        shortest = window or self._shortest(facts)
        size = window or 2 * shortest
        found = self._try(facts, 1, size)
        longer = found if window else self._try(facts, 1, size + max(shortest, facts.sample_rate))
        facts = facts.model_copy(
            update={"output_axes": self.said.output_axes or self._output(found, longer)}
        )
        facts = facts.model_copy(update={"batch": self._batch(facts, size)})
        return self._pooled(facts, window, shortest, self._width(facts, found))

    def _input(self, facts: TeacherFacts) -> TeacherFacts:
        word = self.said.input_axes or self._input_axes()
        if len(word) != len(self.shape):
            raise self._unclear("input", self.shape, f'"input_axes": "{word}" has other axes')
        if "S" in word:
            return facts.model_copy(update={"input_axes": word})
        bands = dict(zip(word, self.shape, strict=True)).get("F")
        settings = self.said.log_mel or LogMelFacts(
            n_mels=bands or 64, f_max=min(7800.0, 0.4875 * facts.sample_rate)
        )
        if bands not in (None, settings.n_mels):
            raise self._unclear(
                "input", self.shape, f'"log_mel": {{"n_mels": {settings.n_mels}}} does not fit it'
            )
        return facts.model_copy(update={"input_axes": word, "log_mel": settings})

    def _input_axes(self) -> str:
        """Samples where there is one axis beside clips; log-mel where one has the size of bands."""
        shape = list(self.shape)
        if len(shape) in (1, 2):
            return "S" if len(shape) == 1 else "BS"
        rest = [("1" if size == 1 else "?") for size in shape[1:]]
        if rest.count("?") == 1:
            return "B" + "".join(rest).replace("?", "S")
        if rest.count("?") == 2:
            sizes = [size for size in shape[1:] if size != 1]
            bands = [size in BANDS for size in sizes]
            if bands.count(True) == 1:
                first, second = ("F", "T") if bands[0] else ("T", "F")
                return "B" + "".join(rest).replace("?", first, 1).replace("?", second, 1)
        raise self._unclear(
            "input", shape, 'name its axes by "input_axes": "BS" for samples, "B1FT" for log-mel'
        )

    def _window(self, facts: TeacherFacts) -> int | None:
        """Samples of the windows that it takes, where they are of one size."""
        sizes = dict(zip(facts.input_axes, self.shape, strict=True))
        said = self.said.window_seconds
        asked = round(said * facts.sample_rate) if said else None
        fixed = sizes.get("S")
        if facts.log_mel is not None and sizes["T"] is not None:
            hop = facts.log_mel.hop_length
            least = (sizes["T"] - 1) * hop
            fixed = asked if asked in range(least, least + hop) else least
        if fixed and asked and fixed != asked:
            raise self.place.refuse(
                f"it takes windows of {fixed} samples and its JSON says window_seconds={said:g}, at"
                f" {facts.sample_rate} Hz {asked}; leave that out, or correct sample_rate."
            )
        return fixed or asked

    def _shortest(self, facts: TeacherFacts) -> int:
        """The fewest samples that it takes."""
        low, high = 0, round(SHORTEST_SECONDS * facts.sample_rate)
        while fault := self._fault(facts, high):
            low, high = high, 2 * high
            if high > LONGEST_SECONDS * facts.sample_rate:
                raise self.place.refuse(
                    f"it fails on clips of any length up to {low / facts.sample_rate:.0f} s"
                    f' ({fault}); set "window_seconds" to what it takes.'
                )
        while high - low > 1:
            middle = (low + high) // 2
            if self._fault(facts, middle):
                low = middle
            else:
                high = middle
        return high

    def _fault(self, facts: TeacherFacts, size: int) -> str:
        """Why it does not take a clip of `size` samples, or ""."""
        try:
            found = self.call(axes.given(_noise(self._rows(facts, 1), size), facts))
        except ConfigError:
            raise
        except Exception as error:
            return _first_line(error)
        return "" if found.size else "it gives nothing"

    def _rows(self, facts: TeacherFacts, rows: int) -> int:
        return (self.shape[0] or rows) if facts.input_axes[0] == "B" else 1

    def _try(self, facts: TeacherFacts, rows: int, size: int) -> np.ndarray:
        try:
            return self.call(axes.given(_noise(self._rows(facts, rows), size), facts))
        except ConfigError:
            raise
        except Exception as error:
            raise self.place.refuse(
                f"it fails on {self._rows(facts, rows)} x {size} samples of noise"
                f' ({_first_line(error)}); set "window_seconds", "sample_rate" or "input_axes" to'
                " what it takes."
            ) from None

    def _output(self, found: np.ndarray, longer: np.ndarray) -> str:
        """Time is the axis that grows with the clip; without one, the embedding is all there is."""
        if found.dtype.kind != "f":
            raise self.place.refuse(
                f"its output has {found.dtype} numbers, which are no embedding; name another by"
                ' "output".'
            )
        if found.ndim == longer.ndim and found.ndim:
            grows = [a != b for a, b in zip(found.shape, longer.shape, strict=True)]
            rows = not grows[0] and len(self.shape) > 1 and found.ndim > 1
            word = ["B"] if rows else []
            for grown, size in list(zip(grows, found.shape, strict=True))[len(word) :]:
                word.append("T" if grown else "1" if size == 1 else "D")
            if word.count("T") <= 1 and word.count("D") == 1:
                return "".join(word)
        raise self._unclear(
            "output",
            found.shape,
            'name its axes by "output_axes": "BD" for a vector, "BTD" or "BDT" for frames',
        )

    def _batch(self, facts: TeacherFacts, size: int) -> int | None:
        """How many windows it takes at once, where that is one number."""
        if facts.input_axes[0] != "B" or "B" not in facts.output_axes:
            return 1
        if self.shape[0] is not None:
            return self.shape[0]
        try:
            found = axes.frames(self.call(axes.given(_noise(2, size), facts)), facts.output_axes)
        except Exception:
            return 1
        return None if len(found) == 2 else 1

    def _width(self, facts: TeacherFacts, found: np.ndarray) -> int:
        if found.ndim != len(facts.output_axes):
            raise self._unclear(
                "output", found.shape, f'"output_axes": "{facts.output_axes}" has other axes'
            )
        return axes.frames(found, facts.output_axes).shape[2]

    def _pooled(
        self, facts: TeacherFacts, window: int | None, shortest: int, width: int
    ) -> TeacherFacts:
        """A model of frames sees a short clip in twice what it needs, a frame at either end."""
        has_frames = "T" in facts.output_axes
        said = round((self.said.min_seconds or 0) * facts.sample_rate)
        least = window or max(shortest, said or (2 * shortest if has_frames else 0))
        pooling = facts.pooling
        if not (has_frames or window or "pooling" in self.said.model_fields_set):
            pooling = "mean"
        return facts.model_copy(
            update={
                "window_seconds": window / facts.sample_rate if window else None,
                "min_samples": least,
                "pooling": pooling,
                "embedding_dim": width * (2 if pooling == "mean_max" else 1),
            }
        )

    def _unclear(self, what: str, shape: Sequence[Any], remedy: str) -> Exception:
        sizes = ", ".join("?" if size is None else str(size) for size in shape)
        return self.place.refuse(f"its {what} has the shape ({sizes}); {remedy} in its JSON.")


def _noise(rows: int, size: int) -> np.ndarray:
    """Int16 noise (rows, size), always the same."""
    return (NOISE * np.random.default_rng(0).standard_normal((rows, size))).astype(np.int16)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
