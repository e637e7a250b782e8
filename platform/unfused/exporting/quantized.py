"""An ONNX file with 8-bit weights, a third of the size.

The rule of this file: the front end stays as it is, for a logarithm does not forgive rounding; only
what was learned is quantised.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unfused.exporting.facts import INPUT
from unfused.exporting.onnxfile import SCOPES, require, waveform

OPERATORS = ("Conv", "MatMul", "Gemm")
FRONT_END = ".spectrum"
"""In the names of the modules that make log-mel."""


def save(path: Path, out: Path, calibration: Sequence[np.ndarray]) -> None:
    """Write the 8-bit variant of an ONNX file.

    Args:
        path: the file.
        out: the variant.
        calibration: int16 clips (S,) that tell the range of every activation; without any it is
            taken from each clip anew.

    Raises:
        ConfigError: a library is missing.
    """
    require("onnxruntime")
    from onnxruntime import quantization

    with tempfile.TemporaryDirectory() as scratch:
        prepared = Path(scratch) / "prepared.onnx"
        # Unoptimised: the Fourier basis would become numbers, and most of the file.
        quantization.shape_inference.quant_pre_process(
            path, prepared, skip_optimization=True, skip_symbolic_shape=True
        )
        common = {
            "op_types_to_quantize": list(OPERATORS),
            "nodes_to_exclude": front_end(path),
        }
        if not calibration:
            unsigned = quantization.QuantType.QUInt8
            quantization.quantize_dynamic(prepared, out, weight_type=unsigned, **common)
            return
        # In 7 bits: sums of products of 8 overflow on processors without VNNI.
        quantization.quantize_static(
            prepared, out, _reader(calibration), per_channel=True, reduce_range=True, **common
        )


def front_end(path: Path) -> list[str]:
    """The names of the nodes that make log-mel of samples."""
    import onnx

    return [
        node.name
        for node in onnx.load(path).graph.node
        for said in node.metadata_props
        if said.key == SCOPES and FRONT_END in said.value
    ]


def _reader(clips: Sequence[np.ndarray]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        """The clips, one after the other."""

        def __init__(self) -> None:
            self.rest: Iterator[np.ndarray] = iter(clips)

        def get_next(self) -> dict[str, np.ndarray] | None:
            clip = next(self.rest, None)
            return None if clip is None else {INPUT: waveform(clip)}

    return Reader()
