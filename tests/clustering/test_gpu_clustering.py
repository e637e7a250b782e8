"""Clustering on a GPU: cuML and the torch backend, held to the CPU by inertia and labels."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from unfused.clustering import cuml_backend, get, torch_backend
from unfused.clustering.assign import assign

NO_CUDA = "this machine has no CUDA device"
NO_CUML = "cuML is not installed (the gpu extra has it)"
has_cuml = importlib.util.find_spec("cuml") is not None
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason=NO_CUDA)
needs_cuml = pytest.mark.skipif(not has_cuml, reason=NO_CUML)
OPTIONS = {"num_iterations": 50, "seed": 0, "num_init": 3}


def blobs(num_rows: int = 3000, num_blobs: int = 12) -> tuple[np.ndarray, np.ndarray]:
    truth = np.arange(num_rows) % num_blobs
    noise = np.random.default_rng(0).normal(size=(num_rows, 16))
    return (8 * np.eye(16)[truth] + 0.3 * noise).astype("float32"), truth


@needs_cuml
def test_the_installed_cuml_accepts_what_this_project_asks_of_it():
    built = cuml_backend.build(num_clusters=5, num_iterations=20, seed=-1, num_init=4)
    asked = {
        "n_clusters": 5,
        "max_iter": 20,
        "n_init": 4,
        "init": "scalable-k-means++",
        "random_state": 2**32 - 1,
        "output_type": "numpy",
    }
    assert asked.items() <= built.get_params().items()


@pytest.mark.gpu
@needs_cuda
@needs_cuml
def test_cuml_finds_separated_clusters_the_same_for_the_same_seed():
    x, truth = blobs()
    first, again = (get("cuml")(x, num_clusters=12, **OPTIONS) for _ in range(2))
    labels = [assign(x, fitted.centroids)[0] for fitted in (first, again)]
    assert adjusted_rand_score(truth, labels[0]) == 1.0
    np.testing.assert_array_equal(labels[0], labels[1])
    assert first.backend == "cuml"


@pytest.mark.gpu
@needs_cuda
@needs_cuml
def test_cuml_agrees_with_the_torch_backend_in_inertia_where_clusters_overlap():
    x = np.random.default_rng(1).normal(size=(5000, 8)).astype("float32")
    cuml, ours = (get(name)(x, num_clusters=30, **OPTIONS).inertia for name in ("cuml", "torch"))
    assert cuml == pytest.approx(ours, rel=0.02)


@pytest.mark.gpu
@needs_cuda
def test_the_torch_backend_repeats_itself_on_a_gpu_and_agrees_with_the_cpu():
    x = np.random.default_rng(2).normal(size=(5000, 8)).astype("float32")
    first, again, cpu = (
        torch_backend.fit(x, num_clusters=30, device=device, **OPTIONS)
        for device in ("cuda", "cuda", "cpu")
    )
    np.testing.assert_array_equal(first.centroids, again.centroids)
    assert first.inertia == pytest.approx(cpu.inertia, rel=0.02)
