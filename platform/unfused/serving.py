"""The registered model: MLflow runs this very file to make it, from code and without pickle.

The rule of this room: it scores a clip exactly as the evaluation does, and needs no Ray. It is the
one file beside `tracking` that imports mlflow, whose base class a served model has.

Axes: B clips, S samples of a clip, N classes.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import repeat
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.pyfunc import PythonModel, PythonModelContext

from unfused.inference import Model
from unfused.inference.folder import RATE, RATE_IN_PYTHON
from unfused.inference.hearing import INTEGERS, SAMPLES_A_SECOND, SERVED_SECONDS
from unfused.store import Folder

SHORTEST_BASE64 = 60
"""Characters: no file of audio is shorter than its header. Shorter text is a path."""
IN_URLS = str.maketrans("-_", "+/")
"""What base64 has in URLs, where it may lack the `=` at its end; text with `/` or `+` is none such,
and a path with folders is not taken for it."""
IN_A_SERVER = "_MLFLOW_IS_IN_SERVING_ENVIRONMENT"
"""MLflow's own variable, set where its server asks the model for whoever asks the server."""
FOLDER = "UNFUSED_SERVED_FOLDER"
"""The folder whose files such a server reads by their paths; it reads none without."""
COLUMNS = ("path", "audio", "samples")
"""Of a data frame: where files lie, their bytes (raw or as base64), or lists of samples."""
RATES = (RATE, RATE_IN_PYTHON)
"""Either says what rate samples have: a parameter for all of them, or a column for each."""


class Classifier(PythonModel):
    """Recordings in; a label and the probability of every class out."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the model; in a server it takes no recording that is longer than one may send."""
        limits = {}
        if _in_a_server():
            most = SERVED_SECONDS * SAMPLES_A_SECOND
            limits = {"max_seconds": SERVED_SECONDS, "max_samples": most}
        self.model = Model(Folder.of(context.artifacts["model"]), **limits)

    def predict(
        self,
        context: PythonModelContext,
        model_input: np.ndarray,
        params: Mapping[str, Any] | None = None,
    ) -> pd.DataFrame:
        """What MLflow calls: see `classify`, which takes more than arrays. With this type alone
        MLflow neither holds the input against it nor advises to name one."""
        return self.classify(model_input, self._stated(params or {}))

    def _stated(self, params: Mapping[str, Any]) -> int | None:
        """The rate of samples that parameters state: `RATE` is the model's own where it is not
        given.

        Raises:
            ValueError: they state two.
        """
        rate, other = (params.get(name) for name in RATES)
        if other is None or rate in (None, self.model.facts.sample_rate):
            return rate if other is None else other
        if rate != other:
            raise ValueError(f"{RATES[0]} is {rate} and {RATES[1]} is {other}; give one of them.")
        return rate

    def classify(self, clips: Any, rate: int | None = None) -> pd.DataFrame:
        """Label clips.

        Args:
            clips: waveforms (B, S) or (S,), mono, in [-1, 1] or of int16, int32 or uint8; or paths,
                bytes of files or their base64, in a list or in a data frame with one of `COLUMNS`,
                and one of `RATES` where samples have rates of their own.
            rate: Hz of waveforms; by default the model's own. Another one is resampled.

        Returns:
            A row for each clip: `label`, and `probability.<class>` for every class.

        Raises:
            ValueError: there is nothing to label, it cannot be read, or no rate is like that.
        """
        waves = [self._wave(one, rate if own is None else own) for one, own in _each(clips)]
        if not waves:
            raise ValueError("There is no clip to label; give waveforms, paths or bytes of files.")
        probabilities = self.model.probabilities(waves)
        classes = np.array(self.model.classes, dtype=object)
        table = pd.DataFrame(probabilities, columns=[f"probability.{name}" for name in classes])
        table.insert(0, "label", classes[probabilities.argmax(1)])
        return table

    def _wave(self, clip: Any, rate: int | None) -> np.ndarray:
        if isinstance(clip, str):
            clip = _bytes_or_path(clip)
        if isinstance(clip, str) and _in_a_server():
            _check_served(clip)
        if isinstance(clip, bytes | str):
            return self.model.wave(clip)
        try:
            counted = isinstance(clip, np.ndarray) and clip.dtype in INTEGERS
            samples = clip if counted else np.asarray(clip, np.float32)
        except (TypeError, ValueError):
            raise ValueError(
                f"A clip is of {type(clip).__name__}; give waveforms, paths or bytes of files."
            ) from None
        return self.model.wave(samples, self.model.facts.sample_rate if rate is None else rate)


def _each(clips: Any) -> Iterator[tuple[Any, Any]]:
    """The clips one by one, each with the rate that is stated beside it, if one is."""
    if isinstance(clips, pd.DataFrame):
        return _rows(clips)
    if isinstance(clips, Mapping):
        return _rows(_frame(clips))
    return zip(_clips(clips), repeat(None), strict=False)


def _frame(columns: Mapping[str, Any]) -> pd.DataFrame:
    """Columns, each a list or the value of an only clip, as a data frame.

    Raises:
        ValueError: they are of several lengths.
    """
    listed = {name: list(one) if _is_list(one) else [one] for name, one in columns.items()}
    if len({len(values) for values in listed.values()}) > 1:
        raise ValueError("Columns are of several lengths; give each a value for every clip.")
    return pd.DataFrame(listed)


def _is_list(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str | bytes)


def _rows(frame: pd.DataFrame) -> Iterator[tuple[Any, Any]]:
    """The rows of a data frame: with none of `COLUMNS` each is a waveform, a column to a sample.
    What stands beside files, as in a manifest, is not looked at.

    Raises:
        ValueError: nothing says what a column means.
    """
    rate = next((name for name in RATES if name in frame.columns), None)
    column = next((name for name in COLUMNS if name in frame.columns), None)
    rest = frame.drop(columns=[name for name in (rate, column) if name])
    of_files = column in COLUMNS[:2]
    if not of_files and (other := [name for name in rest if column or not _is_numbered(name)]):
        raise ValueError(
            f"Nothing says what the column {other[0]!r} means; give one of {', '.join(COLUMNS)},"
            f" and {RATE} where samples have rates of their own."
        )
    clips = frame[column] if column else rest.to_numpy()
    rates = (None if pd.isna(one) else one for one in frame[rate]) if rate else repeat(None)
    return zip(clips, rates, strict=False)


def _is_numbered(name: Any) -> bool:
    return str(name)[-1:].isdigit()


def _clips(clips: Any) -> Any:
    if isinstance(clips, str | bytes):
        return [clips]
    if not _is_list(clips):
        kind = type(clips).__name__
        raise ValueError(f"Got {kind}; give a list of waveforms, paths or bytes of files.")
    if not isinstance(clips, np.ndarray):
        clips = list(clips)
    elif clips.ndim not in (1, 2):
        raise ValueError(
            f"Got waveforms of shape {clips.shape}; give (clips, samples), mono, in [-1, 1]."
        )
    one_wave = len(clips) > 0 and isinstance(clips[0], int | float | np.number)
    return [clips] if one_wave else clips


def _in_a_server() -> bool:
    return os.environ.get(IN_A_SERVER, "").lower() == "true"


def _check_served(path: str) -> None:
    """Refuse a path that whoever asks a server may not have read.

    Raises:
        ValueError: it leads out of the folder that is served, or none is.
    """
    folder = os.environ.get(FOLDER)
    if not folder:
        raise ValueError(
            f"This server reads no paths; send the file as base64, or start it with {FOLDER}=..."
        )
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        raise ValueError(f"This server reads files below {folder} alone; got {path!r}.")


def _bytes_or_path(text: str) -> bytes | str:
    """What a file's base64 stands for, of either alphabet and with line breaks or not, with
    `data:...;base64,` before it or not; or a path."""
    body = text.partition(";base64,")[2] if text.startswith("data:") else text
    body = "".join(body.splitlines())
    if len(body) < SHORTEST_BASE64:
        return text
    if "/" not in body and "+" not in body:
        body = body.translate(IN_URLS) + "=" * (-len(body) % 4)
    try:
        return base64.b64decode(body, validate=True)
    except binascii.Error:
        return text


mlflow.models.set_model(Classifier())
