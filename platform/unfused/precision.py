"""The arithmetic that a pass through a model is computed in.

The rule of this file: where `auto` stands, bfloat16 is for devices that have it natively.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

CPU_FLAGS = Path("/proc/cpuinfo")


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Autocast to a resolved precision ("bfloat16" or "float32") on a torch device."""
    import torch

    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def native_bfloat16(gpu: bool) -> bool:
    """Whether bfloat16 arithmetic is native; emulated it is slower than float32."""
    if gpu:
        import torch

        return not torch.cuda.is_available() or torch.cuda.get_device_capability() >= (8, 0)
    if not CPU_FLAGS.exists():
        return False
    return bool({"avx512_bf16", "amx_bf16"} & set(CPU_FLAGS.read_text().split()))
