"""bfloat16 is taken where it is native, and nowhere else."""

from __future__ import annotations

import pytest

from unfused import precision


def test_native_bfloat16_is_what_torch_finds():
    import torch

    found = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    assert precision.native_bfloat16(gpu=False) == found


@pytest.mark.parametrize(
    ("flags", "native"),
    [("sse2 avx512_bf16 sha", True), ("fma amx_bf16", True), ("avx512f bf16", False)],
)
def test_a_processor_without_the_instructions_computes_in_float32(
    monkeypatch, tmp_path, flags, native
):
    (tmp_path / "cpuinfo").write_text(f"flags\t\t: {flags}\n")
    monkeypatch.setattr(precision, "CPU_FLAGS", tmp_path / "cpuinfo")
    assert precision.native_bfloat16(gpu=False) == native
