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

from unfused import scorers
from unfused.audio.samples import to_int16
from unfused.scorers import ScorerFacts
from unfused.store import Folder

CLIPS_AT_ONCE = 64


class Classifier(PythonModel):
    """Waveforms in; a label and the probability of every class out."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the scorer, and what it says of itself."""
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        folder = Folder.of(context.artifacts["classifier"])
        self.facts = ScorerFacts.model_validate(folder.read_json(scorers.FACTS_FILE))
        self.scorer = scorers.load(folder, self.facts).to(self.device)

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
        classes = np.array(self.facts.classes, dtype=object)
        table = pd.DataFrame(probabilities, columns=[f"probability.{name}" for name in classes])
        table.insert(0, "label", classes[probabilities.argmax(1)])
        return table

    def _score(self, waveforms: np.ndarray) -> np.ndarray:
        """Waveforms (B, S) to probabilities (B, N), in the int16 that ingest stores."""
        given = scorers.given(self.facts, to_int16(waveforms), self.device)
        return self.scorer.scores(given)[0].float().softmax(1).cpu().numpy()


mlflow.models.set_model(Classifier())
