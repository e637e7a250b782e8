"""`unfused export` and `unfused page`: a model as one file for other programs, or for a browser.

The rule of this file: what 8 bits cost is measured before it is said, on clips of the model's run
where they are at hand.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.markup import escape

from unfused import data, display, exporting
from unfused.commands.places import writable
from unfused.config import ConfigError
from unfused.exporting.page import page
from unfused.inference import ModelFacts, read_facts
from unfused.inference.folder import CLASSIFIER
from unfused.inference.tables import opened
from unfused.inference.timeline import Grid, TimelineConfig
from unfused.stages.ingest import IngestFacts
from unfused.store import Artifact, Folder, Store

OF_ENDING = {".onnx": "onnx", ".pt2": "torch", ".pt": "torch", ".pth": "torch"}
"""What a file of this name is, by custom."""
CALIBRATED_BY = 64
"""Training clips, without their labels."""
MEASURED_BY = 512
"""Validation clips."""


class Clips(NamedTuple):
    """Of the run that made a model."""

    train: list[np.ndarray]
    """Int16 clips (S,) each."""
    valid: list[np.ndarray]
    labels: np.ndarray
    """Class ids of the validation clips."""


def export(folder: Folder, format: str, out: str, int8: bool) -> None:
    """Write a model as one file, and say how its 8-bit variant compares.

    Args:
        folder: of the model.
        format: "onnx" or "torch".
        out: the file.
        int8: of ONNX also the variant with 8-bit weights.

    Raises:
        ConfigError: such a model cannot be exported, or a file cannot be written.
    """
    facts, path = read_facts(folder), writable("--out", out)
    if format not in ("onnx", "torch"):
        raise ConfigError(f"--format {format}: there are onnx and torch.")
    if (other := OF_ENDING.get(path.suffix.lower(), format)) != format:
        raise ConfigError(f"--out {out} is the name of a file for {other}; add --format {other}.")
    if int8:
        writable("--out (of --int8)", str(exporting.int8_file(path)))
    clips = _clips(facts) if int8 else None
    console = display.make_console()
    told = _written(folder, facts, path, format, int8, clips.train if clips else ())
    size = path.stat().st_size / 2**20
    console.print(
        f"{escape(out)}  {size:.1f} MiB: waveform (clips, samples) at {told.sample_rate} Hz ->"
        f" probabilities (clips, {len(told.classes)}), embedding (clips, {told.embedding_dim})",
        highlight=False,
    )
    if told.int8_file:
        _compare(path, path.with_name(told.int8_file), clips)


def _written(
    folder: Folder,
    facts: ModelFacts,
    out: Path,
    format: str,
    int8: bool,
    calibration: Sequence[np.ndarray],
) -> exporting.ExportFacts:
    """Files that are there when all of them are whole.

    Raises:
        ConfigError: such a model cannot be exported.
    """
    licenses = "; ".join(f"{one.of}: {one.license}" for one in facts.licenses if one.license)
    with tempfile.TemporaryDirectory(dir=out.resolve().parent, prefix=".unfused-") as scratch:
        made = exporting.write(
            folder / CLASSIFIER, facts.scorer, facts.sample_rate, Path(scratch) / out.name,
            format, int8, calibration=calibration, license=licenses,
        )  # fmt: skip
        for name in filter(None, (made.int8_file, made.file)):
            os.replace(Path(scratch) / name, out.with_name(name))
    return made


def _compare(path: Path, small: Path, clips: Clips | None) -> None:
    console = display.make_console()
    size = small.stat().st_size / 2**20
    said = "accuracy not measured: the run's store, with its validation clips, is not at hand"
    if clips and clips.valid:
        one, other = (
            exporting.accuracy(file, clips.valid, clips.labels) for file in (path, small)
        )
        said = f"accuracy {other:.3f}, float {one:.3f}, on {len(clips.valid)} validation clips"
    console.print(f"{escape(str(small))}  {size:.1f} MiB: {said}", highlight=False)


def _clips(facts: ModelFacts) -> Clips | None:
    """Clips of the run, at the model's rate; None where its store is not at hand."""
    lineage = facts.lineage
    store = Store.at(lineage.get("store", "store"))
    for name, key in lineage.get("keys", {}).items():
        manifest = store.manifest("ingest", key) if name.startswith("ingest/") else None
        if manifest is None:
            continue
        ingested = IngestFacts.model_validate(manifest["facts"])
        if found := _of_ingested(facts, store.kept("ingest", key), ingested):
            return found
    return None


def _of_ingested(facts: ModelFacts, folder: Folder, ingested: IngestFacts) -> Clips | None:
    """Clips of a task; None where it has no validation clips, or has them at another rate."""
    names = ("train", "valid", "valid.labels")
    parts = [
        Artifact(folder / name, name, ingested.parts[name])
        for name in names
        if name in ingested.parts
    ]
    if len(parts) < len(names) or parts[1].facts.audio.sample_rate != facts.sample_rate:
        return None
    train, valid, labels = parts
    ids = data.truth_in(facts.classes, labels)[:MEASURED_BY]
    return Clips(_some(train, CALIBRATED_BY), _some(valid, MEASURED_BY), ids)


def _some(part: Artifact, most: int) -> list[np.ndarray]:
    rows = range(min(most, data.num_clips(part)))
    return [wave for _, waves in data.whole_clips(part, rows, most) for wave in waves]


def write_page(folder: Folder, out: str, int8: bool) -> None:
    """Write a model as a page.

    Raises:
        ConfigError: such a model cannot be exported, or the runtime cannot be fetched.
    """
    facts, path = read_facts(folder), writable("--out", out)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "model.onnx"
        clips = _clips(facts) if int8 else None
        told = _written(folder, facts, file, "onnx", int8, clips.train if clips else ())
        chosen = file.with_name(told.int8_file) if told.int8_file else file
        about = (
            f"{len(facts.classes)} classes; accuracy {facts.measured.own_accuracy:.3f} on"
            f" {facts.measured.num_clips} {facts.measured.split} clips."
        )
        grid = Grid.of(facts.sample_rate, TimelineConfig(), facts.durations[2])
        text = page(
            chosen, facts.name, about, facts.classes, facts.sample_rate, grid.window, grid.hop,
            facts.channel,
        )  # fmt: skip
    with opened(str(path.absolute())) as file:
        file.write(text.encode())
    size = path.stat().st_size / 2**20
    display.make_console().print(
        f"{escape(out)}  {size:.1f} MiB: open it in a browser", highlight=False
    )
