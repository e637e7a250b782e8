"""The training step on CPU, against the same step in float32 on contiguous tensors.

    python benchmarks/training_step.py --embedding-dims 512 2048

All contestants take the same optimiser steps on waveforms held in memory; what differs is the
precision, the memory format, the allocator, and whether the modules are torch's alone. Each runs in
a process of its own, because the allocator's settings are the process's.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass

import harness
import peers
import torch
from torch import nn

from unfused import cores, precision, runtime
from unfused.config import RunOptions

CONTESTANTS = {
    "float32, contiguous": ("float32", "contiguous", "plain", "torch"),
    "float32, channels last": ("float32", "channels_last", "plain", "torch"),
    "float32, channels last, calm allocator": ("float32", "channels_last", "calm", "torch"),
    "bfloat16, channels last, calm allocator": ("bfloat16", "channels_last", "calm", "torch"),
}


def ours(precision: str) -> dict[str, tuple[str, ...]]:
    """What runs here, with the precision that `auto` takes."""
    name = f"{precision}, channels last, calm allocator, dropout of our own"
    return {name: (precision, "channels_last", "calm", "own")}


@dataclass(frozen=True)
class Sizes:
    batch_size: int = 64
    embedding_dims: tuple[int, ...] = (2048,)
    steps: int = 5
    repetitions: int = 2


def measure(sizes: Sizes) -> harness.Report:
    rows, aims, notes = [], [], []
    chosen = runtime.resolve(peers.contrast(), runtime.probe(RunOptions()))
    contestants = CONTESTANTS | ours(chosen.pretrain.precision)
    first, mine = next(iter(contestants)), list(contestants)[-1]
    for width in sizes.embedding_dims:
        found = harness.alternate(
            {name: _in_process(how, width, sizes) for name, how in contestants.items()},
            sizes.repetitions,
        )
        for name, rates in found.items():
            ratio = harness.ratio(found, name, first)
            rows.append([str(width), name, harness.spread(rates), f"{ratio:.2f}"])
        aims.append(
            harness.Aim(f"d = {width}, chosen here / first", harness.ratio(found, mine, first), 3.0)
        )
        parts, operations = _parts(width, sizes)
        share = parts["augmentation and loss"] / parts["step"]
        aims.append(
            harness.Aim(
                f"d = {width}, augmentation and loss, share of a step", share, 0.15, at_most=True
            )
        )
        notes.append(
            f"d = {width}, a step of {parts['step'] * 1e3:.0f} ms (NT-Xent, two views): "
            + ", ".join(
                f"{name} {parts[name] / parts['step']:.0%}"
                for name in ("log-mel", "augmentation", "loss")
            )
            + f"; by operation: {operations}"
        )
    notes.append(f"chosen here: {mine} (`auto` takes bfloat16 where the processor computes in it)")
    return harness.Report(
        "Pre-training step, clips/s", ["d", "step", "clips/s", "ratio"], rows, aims, notes
    )


def _in_process(how: tuple[str, ...], width: int, sizes: Sizes):
    settings = json.dumps([*how, width, sizes.batch_size, sizes.steps])

    def run() -> float:
        command = [sys.executable, __file__, "--child", settings]
        return float(subprocess.run(command, check=True, capture_output=True).stdout)

    return run


def _child(
    precision: str, layout: str, allocator: str, modules: str, width: int, batch: int, steps: int
) -> None:
    """Print the clips per second of one contestant."""
    if allocator == "calm":
        cores.prepare_process()
    else:
        torch.set_num_threads(cores.available_cpus())
    loop = _loop(precision, width, batch, steps)
    if modules == "torch":
        encoder = loop.learner.clip_encoder.encoder
        encoder.blocks[0] = nn.Sequential(*encoder.blocks[0])
        encoder.frames[2] = nn.Dropout(encoder.frames[2].p)
    if layout == "contiguous":
        loop.learner.clip_encoder.encoder.to(memory_format=torch.contiguous_format)
        loop.learner.clip_encoder._image = _contiguous_image(loop.learner.clip_encoder)
    loop.epoch()
    print(max(loop.epoch() for _ in range(2)))


def _contiguous_image(encoder):
    return lambda spectrogram: encoder.normalize(spectrogram)[:, None].contiguous()


def _loop(precision: str, width: int, batch: int, steps: int) -> peers.InMemoryLoop:
    config = peers.contrast().pretrain.model_copy(
        update={"precision": precision, "batch_size": batch}
    )
    waves = torch.randint(-3000, 3000, (batch * steps, 16000), dtype=torch.int16)
    return peers.InMemoryLoop(waves, config, width)


def _parts(width: int, sizes: Sizes) -> tuple[dict[str, float], str]:
    """Median seconds of a step and of its parts, and the operations that an epoch consists of."""
    cores.prepare_process()
    config = runtime.resolve(peers.contrast(), runtime.probe(RunOptions()))
    loop = _loop(config.pretrain.precision, width, sizes.batch_size, sizes.steps)
    loop.epoch()
    learner, encoder = loop.learner, loop.learner.clip_encoder
    samples = loop.waves[: sizes.batch_size, : peers.AUDIO.crop_samples]
    spectrogram = encoder.spectrogram(samples)
    clip = torch.arange(len(samples))

    def loss() -> None:
        one, two = (torch.randn(len(samples), width, requires_grad=True) for _ in range(2))
        with precision.autocast(samples.device, config.pretrain.precision):
            value = learner.objective(one, two, clip)
        value.backward()

    found = {
        "step": sizes.batch_size / max(loop.epoch() for _ in range(2)),
        "log-mel": _seconds(lambda: encoder.spectrogram(samples)),
        "augmentation": _seconds(lambda: learner.views(spectrogram)),
        "loss": _seconds(loss),
    }
    found["augmentation and loss"] = found["augmentation"] + found["loss"]
    return found, harness.operations(loop.epoch)


def _seconds(run, repetitions: int = 7) -> float:
    times = []
    for _ in range(repetitions):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return sorted(times)[repetitions // 2]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        _child(*json.loads(sys.argv[2]))
    else:
        harness.main("training_step", Sizes(), measure)
