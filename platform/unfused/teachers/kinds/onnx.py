"""ONNX files, by onnxruntime: on the GPU where it has one, else with a thread a core.

Axes: W windows, S samples.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unfused.store import Folder
from unfused.teachers.description import describe
from unfused.teachers.modelfile import teacher, understood
from unfused.teachers.place import Place, near
from unfused.teachers.protocol import Outside, TeacherFacts
from unfused.teachers.signature import Call, Shape
from unfused.teachers.windows import Windowed

if TYPE_CHECKING:
    import torch

NUMBERS = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int16)": np.int16,
    "tensor(int32)": np.int32,
}
"""Types of input that samples can have."""
SILENT = 4
"""Of onnxruntime's own messages only those that end the process: what fails is told in words."""
EXTERNAL = re.compile(rb"\x0a\x08location\x12([\x01-\x7f])")
"""Before the name of a file that holds weights (onnx.proto, StringStringEntryProto)."""


def read(rest: str, place: Place) -> Outside:
    """See `unfused.teachers.read`."""
    path = place.file(rest)
    session = _opened(path, place)
    said = describe(path, place, session.get_modelmeta().custom_metadata_map)
    source = _input(session, said.input, place)
    target = _output(session, said.output, place)
    if said.level is None and NUMBERS[source.type] in (np.int16, np.int32):
        said = said.model_copy(update={"level": "int16"})
    return understood(
        "onnx",
        path,
        place,
        said,
        _call(session, source.name, target.name),
        _shape(source.shape),
        external_files(path),
        input=source.name,
        output=target.name,
    )


def files(folder: Folder, facts: TeacherFacts) -> list[str]:
    """See `unfused.teachers.files`; weights may lie in files beside the graph."""
    place = near(folder).local
    assert place is not None
    more = external_files(place / facts.file)
    return [facts.file, *(str(path.relative_to(place)) for path in more)]


def load(folder: Folder, facts: TeacherFacts, device: torch.device) -> Windowed:
    """See `unfused.teachers.load`."""
    import torch

    assert folder.local is not None
    threads = torch.get_num_threads()
    session = _session(folder.local / facts.file, device.type == "cuda", threads)
    on = "cuda" if "CUDAExecutionProvider" in session.get_providers() else "cpu"
    return teacher(facts, _call(session, facts.input, facts.output), on)


def _opened(path: Path, place: Place) -> Any:
    try:
        import onnxruntime  # noqa: F401
    except ImportError:
        raise place.missing("onnxruntime") from None
    try:
        return _session(path, gpu=False, threads=1)
    except Exception as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise place.refuse(
            f"{path.name} is no ONNX model that onnxruntime can open ({reason}); export it again."
        ) from None


def _session(path: Path, gpu: bool, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = SILENT
    options.intra_op_num_threads = threads
    # Threads that wait asleep leave their cores to others (see `cores.ENVIRONMENT`).
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    wanted = ["CUDAExecutionProvider"] if gpu else []
    there = [name for name in wanted if name in onnxruntime.get_available_providers()]
    return onnxruntime.InferenceSession(
        str(path), options, providers=[*there, "CPUExecutionProvider"]
    )


def _input(session: Any, name: str, place: Place) -> Any:
    """The one input, which takes numbers that samples can be."""
    inputs = session.get_inputs()
    listed = ", ".join(f"{one.name} {one.type} {one.shape}" for one in inputs)
    named = [one for one in inputs if one.name == name] if name else inputs
    if not named:
        raise place.refuse(f'its JSON says "input": "{name}" and it has {listed}; name that.')
    if len(inputs) > 1:
        raise place.refuse(
            f"it has {len(inputs)} inputs ({listed}); export it with the clip as its only input."
        )
    if named[0].type not in NUMBERS:
        raise place.refuse(
            f"its input {listed} takes no samples; export it with an input of float32."
        )
    return named[0]


def _output(session: Any, name: str, place: Place) -> Any:
    """The output that is named, the only one, or the only one that calls itself an embedding."""
    outputs = session.get_outputs()
    if name:
        candidates = [one for one in outputs if one.name == name]
    else:
        candidates = [one for one in outputs if "embed" in one.name.lower()]
        candidates = outputs if len(outputs) == 1 else candidates
    if len(candidates) == 1:
        return candidates[0]
    listed = ", ".join(f"{one.name} {one.shape}" for one in outputs)
    raise place.refuse(f'it has the outputs {listed}; say which is read by "output" in its JSON.')


def _shape(stated: list[Any]) -> Shape:
    """Sizes that are numbers; names and nothing stand for any."""
    return [size if isinstance(size, int) and size > 0 else None for size in stated]


def _call(session: Any, source: str, target: str) -> Call:
    numbers = next(NUMBERS[one.type] for one in session.get_inputs() if one.name == source)
    return lambda values: session.run([target], {source: values.astype(numbers, copy=False)})[0]


def external_files(path: Path) -> list[Path]:
    """The files beside an ONNX file that hold weights of it, sorted."""
    data = path.read_bytes()
    names = {data[found.end() : found.end() + found[1][0]] for found in EXTERNAL.finditer(data)}
    beside = [path.parent / name.decode(errors="replace") for name in names]
    return sorted(one for one in beside if one.is_file())
