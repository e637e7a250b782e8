"""What an exported file says of itself.

The rule of this file: the keys of its metadata that a teacher's description has too
(`teachers.description`) mean the same there, so that an exported file is a teacher as it is.
"""

from __future__ import annotations

import json
from typing import Literal

from unfused.store import Facts

Format = Literal["onnx", "torch"]
INPUT = "waveform"
PROBABILITIES, EMBEDDING = "probabilities", "embedding"
METADATA_FILE = "metadata.json"
"""Among the extra files of what `torch.export.load` reads; ONNX has metadata of its own."""


class ExportFacts(Facts):
    """Of one export."""

    format: Format
    kind: str
    """Of scorer."""
    classes: list[str]
    """In the order of the probabilities."""
    sample_rate: int
    """Hz of the waveform."""
    embedding_dim: int
    """D."""
    license: str
    """Empty where none was stated."""
    file: str
    """Its name."""
    int8_file: str | None
    """The name of the variant with 8-bit weights, if one was asked for."""

    @property
    def metadata(self) -> dict[str, str]:
        """As the file holds it: texts, the classes as a JSON list."""
        return {
            "classes": json.dumps(self.classes, ensure_ascii=False),
            "sample_rate": str(self.sample_rate),
            "level": "float",
            "license": self.license,
            "scorer": self.kind,
        }
