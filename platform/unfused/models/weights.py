"""Weights as safetensors bytes.

The rule of this room: what is loaded is exactly what was saved. A tensor that is missing,
unexpected or of another shape or type is an error: a model that loads in part is a random one.
"""

from __future__ import annotations

from collections.abc import Iterable

from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor, nn

SHOWN_NAMES = 3


def save(module: nn.Module) -> bytes:
    """All tensors of a module's state dict."""
    # Contiguous: safetensors stores no strides, and convolutions may be channels_last.
    state = {name: t.detach().cpu().contiguous() for name, t in module.state_dict().items()}
    return safetensors.save(state)


def load(module: nn.Module, data: bytes) -> None:
    """Fill `module` in place with what `save` gave; on an error it is left as it was.

    Raises:
        ValueError: the bytes are no safetensors file, or a tensor's name, shape or type differs.
    """
    try:
        found = safetensors.load(data)
    except SafetensorError as error:
        raise ValueError(
            f"These {len(data)} bytes are not whole safetensors weights ({error});"
            " build the artifact that they come from again."
        ) from error
    _check(type(module).__name__, module.state_dict(), found)
    module.load_state_dict(found)


def _check(name: str, wanted: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    shared = wanted.keys() & found.keys()
    changed = [
        f"{key} (wanted {_describe(wanted[key])}, found {_describe(found[key])})"
        for key in shared
        if _describe(wanted[key]) != _describe(found[key])
    ]
    faults = [
        _list("are missing", wanted.keys() - shared),
        _list("are unexpected", found.keys() - shared),
        _list("differ", changed),
    ]
    if any(faults):
        raise ValueError(
            f"The weights do not fit {name}: {'; '.join(filter(None, faults))}."
            " Load them into a model of the same settings."
        )


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"


def _list(fault: str, names: Iterable[str]) -> str:
    names = sorted(names)
    if not names:
        return ""
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return f"{len(names)} tensors {fault}: {', '.join(names[:SHOWN_NAMES])}{more}"
