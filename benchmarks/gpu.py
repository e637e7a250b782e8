"""What a GPU reaches: training and embedding against its own ceilings. Needs no Ray.

    PYTHONPATH=platform python benchmarks/gpu.py --batch-size 256

Runs on a bare machine with a CUDA device: nothing of Ray, MLflow or cuML is imported unless it is
there. The ceilings are measured on the same device: bfloat16 matrix multiplication (the arithmetic)
and a device-to-device copy (the memory).
"""

from __future__ import annotations

import importlib.util
import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import harness
import numpy as np
import torch
from torch import Tensor, nn

from unfused.audio.augment import Views
from unfused.audio.frontend import LogMel, Normalize
from unfused.clustering.torch_backend import fit as torch_kmeans
from unfused.models.encoders.audio_ntt import AudioNTT
from unfused.models.heads import Projector
from unfused.objectives.nt_xent import NTXent

DEVICE = torch.device("cuda")
WINDOW = 15200
"""Samples of a training window: 0.95 s at 16 kHz."""


@dataclass(frozen=True)
class Sizes:
    batch_size: int = 256
    embedding_dim: int = 2048
    num_clips: int = 16384
    steps: int = 30
    repetitions: int = 3
    kmeans_rows: int = 1_000_000
    kmeans_clusters: int = 1024


class Step(nn.Module):
    """A pre-training step as the platform takes it: log-mel, two views, encoder, NT-Xent."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mel, self.normalize = LogMel(), Normalize(-7.0, 4.0)
        self.encoder = AudioNTT(embedding_dim=width).to(memory_format=torch.channels_last)
        self.views = Views(
            mixup_ratio=0.4,
            mixup_bank=0,
            canvas_time=1.5,
            frequency_scale=(0.6, 1.5),
            time_scale=(0.6, 1.5),
            fill=-7.0,
        )
        self.objective = NTXent(Projector(width, 2048, 256), 0.2)

    def image(self, spectrogram: Tensor) -> Tensor:
        image = self.normalize(spectrogram)[:, None]
        return image.contiguous(memory_format=torch.channels_last)

    def embed(self, samples: Tensor) -> Tensor:
        with torch.autocast("cuda", enabled=False):
            spectrogram = self.mel(samples)
        return self.encoder.embed(self.image(spectrogram))

    def loss(self, samples: Tensor) -> Tensor:
        with torch.no_grad(), torch.autocast("cuda", enabled=False):
            one, two = self.views(self.mel(samples))
        clip = torch.arange(len(samples), device=samples.device)
        first = self.encoder(self.image(one)).clip.float()
        second = self.encoder(self.image(two)).clip.float()
        return self.objective(first, second, clip)


def timed(run: Callable[[], object], repetitions: int) -> float:
    """Median seconds of a call, by the device's own clock; the first calls do not count."""
    for _ in range(3):
        run()
    times = []
    for _ in range(repetitions):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    return sorted(times)[repetitions // 2]


def ceilings() -> tuple[float, float]:
    """bfloat16 multiplication in TFLOP/s and copying in GB/s (read and written bytes)."""
    a = torch.randn(8192, 8192, device=DEVICE, dtype=torch.bfloat16)
    multiply = 2 * 8192**3 / timed(lambda: a @ a, 10) / 1e12
    source = torch.empty(2**30, device=DEVICE, dtype=torch.uint8)
    target = torch.empty_like(source)
    return multiply, 2 * 2**30 / timed(lambda: target.copy_(source), 10) / 1e9


def trainer(model: Step, *, compile_it: bool) -> Callable[[Tensor], Tensor]:
    """One optimiser step on windows (B, S) that are on the device; its loss."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    loss = torch.compile(model.loss) if compile_it else model.loss

    def step(samples: Tensor) -> Tensor:
        with torch.autocast("cuda", torch.bfloat16):
            value = loss(samples)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        return value.detach()

    return step


def embedder(model: Step, samples: Tensor, how: str) -> Callable[[], Tensor]:
    """Embedding as it is, compiled, or as a captured CUDA graph."""
    model.eval()

    @torch.inference_mode()
    def run(embed: Callable[[Tensor], Tensor] = model.embed) -> Tensor:
        with torch.autocast("cuda", torch.bfloat16, cache_enabled=how != "CUDA graph"):
            return embed(samples)

    if how == "compiled":
        compiled = torch.compile(model.embed)
        return lambda: run(compiled)
    if how == "CUDA graph":
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            for _ in range(3):
                run()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            held = run()
        return lambda: (graph.replay(), held)[1]
    return run


@torch.inference_mode()
def embedded_now(model: Step, samples: Tensor) -> Tensor:
    """Embeddings (B, D) in bfloat16 autocast."""
    with torch.autocast("cuda", torch.bfloat16):
        return model.embed(samples)


def batches(folder: Path, sizes: Sizes) -> Iterator[Tensor]:
    """Windows from shards on local disk, read ahead by a thread pool, pinned, without end."""
    from concurrent.futures import ThreadPoolExecutor

    files = sorted(folder.glob("*.npy"))

    def read(number: int) -> Tensor:
        rng = np.random.default_rng(number)
        clips = np.load(files[number % len(files)], mmap_mode="r")
        at = rng.integers(0, clips.shape[1] - WINDOW + 1, len(clips))
        rows = np.stack([clip[a : a + WINDOW] for clip, a in zip(clips, at, strict=True)])
        return torch.from_numpy(rows).pin_memory()

    with ThreadPoolExecutor(4) as pool:
        ahead = [pool.submit(read, number) for number in range(8)]
        for number in itertools.count(8):
            yield ahead.pop(0).result().to(DEVICE, non_blocking=True)
            ahead.append(pool.submit(read, number))


def fed_from_disk(work: Callable[[Tensor], Tensor], sizes: Sizes) -> tuple[float, float]:
    """Clips per second of `work` on windows from shards, and the share of the time spent waiting.

    What `work` returns is brought to the host, as losses and embeddings are.
    """
    with tempfile.TemporaryDirectory() as place:
        rng = np.random.default_rng(0)
        for number in range(max(1, sizes.num_clips // sizes.batch_size)):
            clips = rng.integers(-3000, 3000, (sizes.batch_size, 16000), dtype=np.int16)
            np.save(Path(place) / f"{number:05d}.npy", clips)
        supply, waited = batches(Path(place), sizes), 0.0
        for step in range(sizes.steps + 5):
            if step == 5:
                torch.cuda.synchronize()
                began, waited = time.perf_counter(), 0.0
            asked = time.perf_counter()
            samples = next(supply)
            waited += time.perf_counter() - asked
            work(samples).cpu()
        seconds = time.perf_counter() - began
    return sizes.steps * sizes.batch_size / seconds, waited / seconds


def kmeans_rows(sizes: Sizes) -> list[list[str]]:
    """Seconds of the k-means backends that are here, on the same vectors."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((sizes.kmeans_rows, 128), dtype=np.float32)
    settings = {"num_clusters": sizes.kmeans_clusters, "num_iterations": 20, "seed": 0}
    found = {"torch on the GPU": lambda: torch_kmeans(x, **settings, num_init=1)}
    if importlib.util.find_spec("cuml"):
        from unfused.clustering.cuml_backend import fit

        found["cuML"] = lambda: fit(x, **settings, num_init=1)
    rows = []
    for name, run in found.items():
        run()
        began = time.perf_counter()
        inertia = run().inertia
        rows.append([f"k-means, {name}", f"{time.perf_counter() - began:.2f} s", f"{inertia:.4g}"])
    return rows


def flops_per_clip(model: Step, samples: Tensor) -> float:
    """Multiply-adds times two of embedding one clip, counted by torch."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.embed(samples)
    return counter.get_total_flops() / len(samples)


def measure(sizes: Sizes) -> harness.Report:
    torch.manual_seed(0)
    model = Step(sizes.embedding_dim).to(DEVICE)
    samples = torch.randint(
        -3000, 3000, (sizes.batch_size, WINDOW), dtype=torch.int16, device=DEVICE
    )
    multiply, copy = ceilings()
    work = flops_per_clip(model, samples)
    rows = [["bfloat16 multiplication", f"{multiply:.0f} TFLOP/s", "ceiling"]]
    rows += [["copy", f"{copy:.0f} GB/s", "ceiling"]]
    rates: dict[str, float] = {}
    for compile_it in (False, True):
        name = f"training, tensors on the GPU{', compiled' if compile_it else ''}"
        step = partial(trainer(model, compile_it=compile_it), samples)
        rates[name] = sizes.batch_size / timed(step, sizes.steps)
        share = rates[name] * 6 * work / multiply / 1e12  # two views, forward and backward
        rows.append([name, f"{rates[name]:,.0f} clips/s", f"{share:.0%} of the multiplication"])
    fed, waiting = fed_from_disk(trainer(model, compile_it=False), sizes)
    rows.append(["training, from shards on disk", f"{fed:,.0f} clips/s", f"waiting {waiting:.1%}"])
    for how in ("as it is", "compiled", "CUDA graph"):
        name = f"embedding, tensors on the GPU, {how}"
        rates[name] = sizes.batch_size / timed(embedder(model, samples, how), sizes.steps)
        share = rates[name] * work / multiply / 1e12
        rows.append([name, f"{rates[name]:,.0f} clips/s", f"{share:.0%} of the multiplication"])
    model.eval()
    embedded, idle = fed_from_disk(partial(embedded_now, model), sizes)
    rows.append(
        ["embedding, from shards on disk", f"{embedded:,.0f} clips/s", f"waiting {idle:.1%}"]
    )
    rows += kmeans_rows(sizes)
    best = max(rate for name, rate in rates.items() if name.startswith("embedding"))
    aims = [
        harness.Aim("share of a step that the GPU waits for data", waiting, 0.1, at_most=True),
        harness.Aim("embedding from shards / from tensors on the GPU", embedded / best, 0.5),
    ]
    return harness.Report(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}",
        ["what", "rate", "of the ceiling"],
        rows,
        aims,
        [f"d = {sizes.embedding_dim}, batches of {sizes.batch_size} windows of 0.95 s"],
    )


if __name__ == "__main__":
    if not torch.cuda.is_available():
        print("benchmarks/gpu.py needs a CUDA device and torch sees none.", file=sys.stderr)
        sys.exit(2)
    harness.main("gpu", Sizes(), measure)
