"""The registered model: MLflow runs this very file to make it, from code and without pickle.

The rule of this room: it scores a waveform exactly as the evaluation scores a clip, and needs no
Ray. It is the one file beside `tracking` that imports mlflow, whose base class a served model has.

Axes: B clips, C windows of a clip, S samples of a waveform, N classes.
"""

from __future__ import annotations

from typing import Any

import mlflow
import numpy as np
import pandas as pd
import torch
from mlflow.pyfunc import PythonModel, PythonModelContext

from unfused.audio.samples import crop_or_pad, to_int16
from unfused.models.classifier import ClipClassifier
from unfused.shards import window_offsets
from unfused.store import Folder

CLIPS_AT_ONCE = 64


class Classifier(PythonModel):
    """Waveforms in; a label and the probability of every class out."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the weights, and how many windows of which length a clip is scored by."""
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        folder = Folder.of(context.artifacts["classifier"])
        self.model = ClipClassifier.load(folder).to(self.device)
        self.crop_samples = int(context.model_config["crop_samples"])
        self.offsets = window_offsets(int(context.model_config["num_crops"]))

    def predict(
        self,
        context: PythonModelContext,
        model_input: np.ndarray,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """What MLflow calls, once it has held the input against the signature: see `classify`."""
        return self.classify(model_input)

    def classify(self, waveforms: np.ndarray) -> pd.DataFrame:
        """Label clips.

        Args:
            waveforms: (B, S) in [-1, 1], mono, at the sample rate that the encoder was trained on
                (16 kHz unless configured otherwise); clips of any one length, S >= 1.

        Returns:
            A row for each clip: `label`, and `probability.<class>` for every class.

        Raises:
            ValueError: there are no samples, or one is not a number.
        """
        if waveforms.ndim != 2 or not waveforms.size or not np.isfinite(waveforms).all():
            raise ValueError(
                f"Got waveforms of shape {waveforms.shape} or with samples that are not numbers;"
                " give (clips, samples), mono, in [-1, 1]."
            )
        blocks = np.array_split(waveforms, -(-len(waveforms) // CLIPS_AT_ONCE))
        probabilities = np.concatenate([self._score(block) for block in blocks])
        classes = np.array(self.model.classes, dtype=object)
        table = pd.DataFrame(probabilities, columns=[f"probability.{name}" for name in classes])
        table.insert(0, "label", classes[probabilities.argmax(1)])
        return table

    def _score(self, waveforms: np.ndarray) -> np.ndarray:
        """Waveforms (B, S) to probabilities (B, N), in the int16 that ingest stores."""
        samples = to_int16(waveforms)
        windows = [
            [crop_or_pad(wave, self.crop_samples, at) for at in self.offsets] for wave in samples
        ]
        return self.model.predict(torch.from_numpy(np.array(windows)).to(self.device)).cpu().numpy()


mlflow.models.set_model(Classifier())
