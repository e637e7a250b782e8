"""ONNX files: how a program becomes one, and what one says of clips.

The rule of this file: plain operators of one opset that onnxruntime-web has as well.

Axes: B clips, S samples, N classes.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from unfused.audio.samples import INT16_SCALE
from unfused.config import ConfigError
from unfused.exporting.facts import EMBEDDING, INPUT, PROBABILITIES
from unfused.exporting.program import Made

OPSET = 18
SCOPES = "pkg.torch.onnx.name_scopes"
"""Where a node says which modules it comes from; the lines of code that are told beside it are no
business of whoever gets the file."""
SILENT = 4
"""Of onnxruntime's own messages only those that end the process."""


def save(made: Made, out: Path, metadata: Mapping[str, str]) -> None:
    """Write a program as an ONNX file, weights and metadata inside.

    Raises:
        ConfigError: a library is missing.
    """
    import torch

    require("onnxscript")
    with _quiet():
        found = torch.onnx.export(
            made.program,
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[PROBABILITIES, EMBEDDING],
            dynamic_shapes={INPUT: {0: "batch", 1: "samples"}},
            verbose=False,
        )
    assert found is not None
    for node in found.model.graph.all_nodes():
        kept = node.metadata_props.get(SCOPES, "")
        node.metadata_props.clear()
        node.metadata_props[SCOPES] = kept
    found.model.metadata_props.update(metadata)
    found.save(out, external_data=False)


def require(package: str) -> None:
    """Refuse to go on without a library.

    Raises:
        ConfigError: it names the extra that has it.
    """
    from importlib.util import find_spec

    if find_spec(package) is None:
        raise ConfigError(
            f"{package} is not installed and ONNX files are written with it; install"
            " 'unfused[export]', or set --format torch."
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's notes on libraries that are not there and on its own insides."""
    log = logging.getLogger("torch.onnx")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)


def session(path: Path) -> Any:
    """A file, ready to run on as many threads as torch has."""
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.log_severity_level = SILENT
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def probabilities(path: Path, clips: Sequence[np.ndarray]) -> np.ndarray:
    """What a file says (B, N) of int16 clips (S,), each of its own length."""
    opened = session(path)
    return np.concatenate(
        [opened.run([PROBABILITIES], {INPUT: waveform(clip)})[0] for clip in clips]
    )


def waveform(clip: np.ndarray) -> np.ndarray:
    """An int16 clip (S,) as a file takes it, float32 (1, S)."""
    return clip[None].astype(np.float32) * np.float32(INT16_SCALE)
