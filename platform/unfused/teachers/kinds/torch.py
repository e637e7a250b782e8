"""Programs of torch: TorchScript, and what `torch.export.save` writes.

The rule of this file: nothing is unpickled. TorchScript has a reader of its own that knows tensors
and no Python objects. `torch.export.load` would unpickle, call and evaluate what a file tells it
to, so the file is looked through first (see `refuse_unsafe`).

Axes: W windows, S samples.
"""

from __future__ import annotations

import ast
import io
import json
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unfused.store import Folder
from unfused.teachers.description import Description, describe
from unfused.teachers.modelfile import teacher, understood
from unfused.teachers.place import Place
from unfused.teachers.protocol import Outside, TeacherFacts
from unfused.teachers.signature import Call, Shape
from unfused.teachers.windows import Windowed

if TYPE_CHECKING:
    import torch

SAFE_TARGETS = ("torch.ops.", "_operator.", "math.", "torch.sym_")
"""What the operators of an exported program begin with; other names are any function of torch."""
EXPRESSIONS = ("expr_str",)
"""Keys of an exported program whose text is evaluated as a formula of sizes."""


class Unsafe(ValueError):
    """A file that could run code of its own; the message says why."""


def read(rest: str, place: Place) -> Outside:
    """See `unfused.teachers.read`."""
    path = place.file(rest)
    said = describe(path, place)
    try:
        module = _program(path)
    except Unsafe as error:
        raise place.refuse(f"{path.name} {error}.") from None
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise place.refuse(
            f"{path.name} cannot be opened ({reason}); write it anew with torch.export.save or"
            " torch.jit.save of the torch that is installed here."
        ) from None
    shape = _shape(module, said)
    return understood(
        "torch", path, place, said, _call(module, said.output, place), shape, output=said.output
    )


def files(folder: Folder, facts: TeacherFacts) -> list[str]:
    """See `unfused.teachers.files`."""
    return [facts.file]


def load(folder: Folder, facts: TeacherFacts, device: torch.device) -> Windowed:
    """See `unfused.teachers.load`."""
    assert folder.local is not None
    module = _program(folder.local / facts.file).to(device)
    call = _call(module, facts.output, Place(facts.source), device)
    return teacher(facts, call, device.type)


def _program(path: Path) -> Any:
    """A module that is called with tensors.

    Raises:
        Unsafe: it is no program, or one that could run code of its own.
    """
    import torch

    names = _names(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if any(name.endswith("/constants.pkl") for name in names):
            return torch.jit.load(str(path), map_location="cpu").eval()
        refuse_unsafe(path, names)
        return torch.export.load(path).module()


def _names(path: Path) -> list[str]:
    if not zipfile.is_zipfile(path):
        raise Unsafe(
            "is no program of torch (an archive of torch.export.save or torch.jit.save); export"
            " the model with one of these"
        )
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def refuse_unsafe(path: Path, names: list[str]) -> None:
    """Hold what `torch.export.load` would unpickle, evaluate or call against what is harmless.

    Raises:
        Unsafe: it is not an archive of `torch.export.save`; a weight or constant is a pickle, an
            example input is more than tensors, a formula more than arithmetic, an operator not
            torch's own, or there is machine code.
    """
    if not any(name.endswith("/archive_format") for name in names):
        raise Unsafe(
            "holds pickled objects and no program; save weights as safetensors, or export the"
            " model with torch.export.save or torch.jit.save"
        )
    if bad := [name for name in names if "/aotinductor/" in name]:
        raise Unsafe(f"holds machine code ({bad[0]}); save it with torch.export.save")
    with zipfile.ZipFile(path) as archive:
        for name in names:
            if name.endswith(".json"):
                _refuse_values(json.loads(archive.read(name)))
            elif name.endswith(".pt"):
                _refuse_objects(archive.read(name), name)


def _refuse_values(value: Any) -> None:
    for key, text in _pairs(value):
        if key == "use_pickle" and text:
            raise Unsafe("has a weight that is pickled; save it with plain tensors")
        if key == "path_name" and "opaque_obj" in str(text):
            raise Unsafe(f"has a pickled object ({text}); save it with plain tensors")
        if key == "target" and isinstance(text, str) and not text.startswith(SAFE_TARGETS):
            raise Unsafe(f"calls {text!r}, which is no operator; export it with torch's own")
        if key in EXPRESSIONS and not is_arithmetic(str(text)):
            raise Unsafe(f"has {text!r} for a size, which is no formula; export it again")


def _pairs(value: Any) -> Iterator[tuple[str, Any]]:
    """All keys of all objects in a JSON value, with what they say."""
    if isinstance(value, dict):
        yield from value.items()
    for part in value.values() if isinstance(value, dict) else value:
        if isinstance(part, dict | list):
            yield from _pairs(part)


def is_arithmetic(text: str) -> bool:
    """Whether a formula has numbers, symbols and functions of sympy alone.

    sympy evaluates it as Python; its functions have capital letters, Python's have not, and no
    string is longer than the name of a symbol.
    """
    try:
        tree = ast.parse(text, mode="eval")
    except SyntaxError:
        return False
    return all(_is_harmless(node) for node in ast.walk(tree))


def _is_harmless(node: ast.AST) -> bool:
    match node:
        case ast.Call(func=ast.Name(id=name)):
            return name[0].isupper() or name in ("floor", "ceiling")
        case ast.Call() | ast.Attribute() | ast.Subscript() | ast.Lambda() | ast.comprehension():
            return False
        case ast.Constant(value=str(word)):
            return word.isalnum() and len(word) <= 8
    return True


def _refuse_objects(data: bytes, name: str) -> None:
    """What torch would unpickle in full where it is more than tensors."""
    import torch

    try:
        if data:
            torch.load(io.BytesIO(data), weights_only=True)
    except Exception:
        raise Unsafe(f"holds pickled objects ({name}); save it with plain tensors") from None


def _shape(module: Any, said: Description) -> Shape:
    """Sizes that an exported program states; TorchScript states none and is taken at its JSON."""
    graph = getattr(module, "graph", None)
    nodes = [] if not hasattr(graph, "find_nodes") else graph.find_nodes(op="placeholder")
    if len(nodes) == 1 and "val" in nodes[0].meta:
        return [size if isinstance(size, int) else None for size in nodes[0].meta["val"].shape]
    return [1 if axis == "1" else None for axis in said.input_axes or "BS"]


def _call(module: Any, output: str, place: Place, device: Any = "cpu") -> Call:
    import torch

    def call(values: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            found = module(torch.from_numpy(np.ascontiguousarray(values)).to(device))
        return _tensor(found, output, place).float().cpu().numpy()

    return call


def _tensor(found: Any, output: str, place: Place) -> Any:
    """The tensor of an output that is one, or has one, or of which `output` names one."""
    import torch

    if isinstance(found, torch.Tensor):
        return found
    named = found if isinstance(found, dict) else dict(enumerate(found))
    named = {str(name): value for name, value in named.items()}
    if output in named:
        return named[output]
    if len(named) == 1:
        return next(iter(named.values()))
    raise place.refuse(
        f'it gives {", ".join(named)}; say which of these is read by "output" in its JSON.'
    )
