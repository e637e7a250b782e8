"""Small models as people export them: ONNX graphs of a few nodes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

BANDS = 4
"""Output channels of every graph here."""


def save_graph(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    given: tuple[Sequence[int | str], int],
    outputs: dict[str, Sequence[int | str]],
    metadata: dict[str, str] | None = None,
    **constants: np.ndarray,
) -> Path:
    """Write a graph from `x` (its shape and type) to outputs of these shapes."""
    shape, kind = given
    graph = helper.make_graph(
        list(nodes),
        "small",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    for key, value in (metadata or {}).items():
        model.metadata_props.add(key=key, value=value)
    onnx.save(model, path)
    return path


def of_samples(
    path: Path,
    shape: Sequence[int | str] = ("batch", "length"),
    kind: int = TensorProto.FLOAT,
    also: str = "",
    metadata: dict[str, str] | None = None,
) -> Path:
    """Samples to frames (B, 4, T): a convolution of 400 samples every 160, and its magnitude.

    Args:
        path: of the file.
        shape: of its input.
        kind: type of its input.
        also: name of a second output, the mean over frames (B, 4).
        metadata: of the file.
    """
    weight = np.random.default_rng(0).standard_normal((BANDS, 1, 400)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["x"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["float", "one"], ["row"]),
        helper.make_node("Conv", ["row", "weight"], ["conv"], strides=[160]),
        helper.make_node("Abs", ["conv"], ["frames"]),
    ]
    outputs: dict[str, Sequence[int | str]] = {"frames": ["batch", BANDS, "time"]}
    if also:
        nodes.append(helper.make_node("ReduceMean", ["frames"], [also], axes=[2], keepdims=0))
        outputs[also] = ["batch", BANDS]
    one = np.array([1], np.int64)
    return save_graph(path, nodes, (shape, kind), outputs, metadata, weight=weight / 400, one=one)


def of_log_mel(path: Path, shape: Sequence[int | str]) -> Path:
    """Log-mel (B, 1, F, T) to the mean of every band (B, F)."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[3], keepdims=0),
        helper.make_node("Squeeze", ["mean", "one"], ["embedding"]),
    ]
    outputs = {"embedding": ["batch", shape[2]]}
    given = (shape, TensorProto.FLOAT)
    return save_graph(path, nodes, given, outputs, one=np.array([1], np.int64))


def not_finite_when_silent(path: Path) -> Path:
    """Samples to a vector that is NaN of a silent clip: 0 / 0 of its energy."""
    nodes = [
        helper.make_node("Abs", ["x"], ["size"]),
        helper.make_node("ReduceMean", ["size"], ["mean"], axes=[1], keepdims=1),
        helper.make_node("ReduceMax", ["size"], ["most"], axes=[1], keepdims=1),
        helper.make_node("Div", ["mean", "most"], ["shape"]),
        helper.make_node("Concat", ["mean", "shape"], ["embedding"], axis=1),
    ]
    given = (("batch", "length"), TensorProto.FLOAT)
    return save_graph(path, nodes, given, {"embedding": ["batch", 2]})
