"""A classifier as one file that needs nothing of this package: waveform in, probabilities out.

The rule of this room: what a file says of a clip is what `unfused.scorers` says of it, the front
end, the windows and their silence included. A file of `kinds` is a kind of scorer and defines
`module(folder, facts, sample_rate)`, which makes it anew of operators that every runtime has; of
`teachers` likewise.

The heavy libraries are imported in functions: asking what a command takes costs none of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from unfused.config import ConfigError
from unfused.exporting.facts import ExportFacts, Format
from unfused.scorers import ScorerFacts
from unfused.store import Folder

INT8 = ".int8.onnx"
"""What the name of the quantised file ends with, in place of `.onnx`."""


def int8_file(out: Path) -> Path:
    """Where the quantised file of an ONNX file lies."""
    return out.with_name(f"{out.stem}{INT8}")


def write(
    folder: Folder,
    facts: ScorerFacts,
    sample_rate: int,
    out: Path,
    format: Format,
    int8: bool = False,
    *,
    calibration: Sequence[np.ndarray] = (),
    license: str = "",
) -> ExportFacts:
    """Write the classifier of the first draw as one file.

    Its input is `waveform`, float32 (clips, samples) in [-1, 1] at the sample rate, any number of
    clips of any one length; its outputs are `probabilities` (clips, classes) and `embedding`
    (clips, D).

    Args:
        folder: of the scorer's files, as `scorers.load` takes it.
        facts: of the scorer, likewise.
        sample_rate: Hz of the clips that it was fitted to.
        out: the file, in a folder that is there.
        format: "onnx", or "torch" for what `torch.export.load` reads.
        int8: of ONNX also a file with 8-bit weights, beside it: `<out>.int8.onnx`.
        calibration: int16 clips (S,) that tell the range of every activation; without any it is
            taken from each clip anew, which is slower.
        license: of the model, as the file shall state it.

    Raises:
        ConfigError: such a scorer cannot be exported, a library is missing, or there is no int8 of
            this format; one sentence that names the remedy.
    """
    if int8 and format != "onnx":
        raise ConfigError("There is an int8 variant of ONNX files alone; set --format onnx.")
    from unfused.exporting import onnxfile, program

    made = program.of(folder, facts, sample_rate)
    told = ExportFacts(
        format=format,
        kind=facts.kind,
        classes=facts.classes,
        sample_rate=sample_rate,
        embedding_dim=made.embedding_dim,
        license=license,
        file=out.name,
        int8_file=int8_file(out).name if int8 else None,
    )
    if format == "torch":
        program.save(made, out, told.metadata)
        return told
    onnxfile.save(made, out, told.metadata)
    if told.int8_file:
        from unfused.exporting import quantized

        quantized.save(out, out.with_name(told.int8_file), calibration)
    return told


def accuracy(path: Path, clips: Sequence[np.ndarray], labels: Sequence[int]) -> float:
    """Share of clips that an exported ONNX file labels right, such as the validation clips.

    Args:
        path: the file, or its int8 variant.
        clips: int16 (S,), each of its own length, at the file's sample rate.
        labels: the class id of each.
    """
    from unfused.exporting import onnxfile

    said = onnxfile.probabilities(path, clips)
    return float((said.argmax(1) == np.asarray(labels)).mean())


__all__ = ["INT8", "ExportFacts", "Format", "accuracy", "int8_file", "write"]
