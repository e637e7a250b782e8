"""Clustering: whitening, the k-means backends, assignment, the cluster model.

References are scikit-learn and plain NumPy loops; ranks are real gloo processes.

Axes: N rows, D embedding, P components, K clusters.
"""

from __future__ import annotations

import sys
import tracemalloc
import warnings
from dataclasses import replace
from functools import reduce
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torch.distributed as dist
from safetensors.numpy import load, save

from unfused.clustering import (
    ClusterModel,
    Moments,
    Whitening,
    describe,
    drop_empty,
    get,
    resolve,
    torch_backend,
)
from unfused.clustering.assign import assign
from unfused.clustering.torch_backend import MIN_SEEDING_ROWS, SEEDING_ROWS, spherical_kmeans
from unfused.config import ClusterConfig, ConfigError
from unfused.data import write_embeddings
from unfused.stages.cluster import _cluster, _sample
from unfused.stages.embed import EmbedFacts
from unfused.store import Artifact, Folder, read_npy

CPU_BACKENDS = ["torch", "sklearn"]
DEFAULTS = {"num_iterations": 50, "seed": 0, "num_init": 3}


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def blobs(num_rows: int = 600, num_blobs: int = 6, width: int = 8, spread: float = 0.3, seed=0):
    """Rows (N, D) float32 around well separated centres, and which centre each is from."""
    rng = np.random.default_rng(seed)
    truth = np.arange(num_rows) % num_blobs
    centres = 8 * np.eye(max(num_blobs, width))[:num_blobs, :width]
    return (centres[truth] + spread * rng.normal(size=(num_rows, width))).astype("float32"), truth


def correlated(num_rows: int = 500, width: int = 12, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(width, width)) * np.linspace(2, 0.2, width)
    return (rng.normal(size=(num_rows, width)) @ mixing + 3).astype("float32")


def agreement(truth: np.ndarray, labels: np.ndarray) -> float:
    """Adjusted Rand index."""
    # Imported late: the two ranks load this file as well, and scikit-learn takes them seconds.
    from sklearn.metrics import adjusted_rand_score

    return adjusted_rand_score(truth, labels)


def whitened(x: np.ndarray, **changes) -> Whitening:
    options = {"num_components": None, "whiten": True, "normalize": False} | changes
    return Whitening.fit(Moments.of(x), **options)


def inertia(x: np.ndarray, centroids: np.ndarray) -> float:
    return float(sum(((centroids - row) ** 2).sum(axis=1).min() for row in x.astype("float64")))


# --- whitening ---------------------------------------------------------------------------------


def test_whitening_is_the_pca_whitening_of_scikit_learn():
    from sklearn.decomposition import PCA

    x = correlated()
    ours = whitened(x, num_components=5)
    reference = PCA(5, whiten=True).fit(x)
    theirs = reference.transform(x)
    mine = ours.transform(x)
    theirs = theirs * np.sign((theirs * mine).sum(axis=0))
    np.testing.assert_allclose(mine, theirs, atol=2e-4)
    assert ours.explained == pytest.approx(reference.explained_variance_ratio_.sum(), rel=1e-5)


def test_whitened_embeddings_have_unit_covariance():
    x = correlated()
    np.testing.assert_allclose(np.cov(whitened(x).transform(x).T), np.eye(12), atol=1e-3)


def test_moments_computed_in_parts_equal_those_of_the_whole():
    x = correlated(257)
    parts = [Moments.of(part) for part in np.split(x, [0, 1, 3, 100, 101, 200])]
    pairs = [reduce(Moments.merge, parts[:4]), reduce(Moments.merge, parts[4:])]
    for merged in (reduce(Moments.merge, parts), pairs[1].merge(pairs[0])):
        whole = Moments.of(x)
        assert merged.count == 257
        np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-12)
        np.testing.assert_allclose(merged.scatter, whole.scatter, rtol=1e-10, atol=1e-9)


def test_moments_survive_a_mean_far_larger_than_the_deviations():
    x = np.random.default_rng(0).normal(size=(400, 5))
    far = reduce(Moments.merge, [Moments.of(part + 1e8) for part in np.split(x, 8)])
    np.testing.assert_allclose(far.scatter / 399, np.cov(x.T), atol=1e-6)
    np.testing.assert_allclose(far.mean - 1e8, x.mean(axis=0), atol=1e-6)


def test_float32_embeddings_far_from_the_origin_are_whitened_all_the_same():
    x = correlated() * 0.1
    near, far = whitened(x), whitened(x + np.float32(1000))
    shifted = far.transform(x + np.float32(1000))
    np.testing.assert_allclose(np.cov(shifted.T), np.eye(12), atol=2e-3)
    assert shifted.shape == near.transform(x).shape


def test_directions_without_variance_are_dropped_and_not_blown_up():
    x = correlated(width=6)
    flat = np.concatenate([x, x[:, :3] * 2, np.ones((len(x), 2), "float32")], axis=1)
    with pytest.warns(UserWarning, match="10 components .* width 11 vary in only 6") as told:
        whitening = whitened(flat, num_components=10)
    assert len(told) == 1
    np.testing.assert_allclose(np.cov(whitening.transform(flat).T), np.eye(6), atol=1e-3)


def test_more_components_than_clips_warns_with_the_numbers_and_uses_what_there_is():
    x = correlated(5)
    with pytest.warns(UserWarning, match="128 components .* 5 embeddings .* only 4"):
        assert whitened(x, num_components=128).transform(x).shape == (5, 4)


def test_keeping_all_components_does_not_warn_and_without_whitening_keeps_all_distances():
    x = correlated(40)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        moved = whitened(x, whiten=False).transform(x)
    distances = [np.linalg.norm(rows[:, None] - rows, axis=2) for rows in (x, moved)]
    np.testing.assert_allclose(distances[1], distances[0], atol=1e-4)


def test_normalised_rows_have_length_one_and_the_mean_itself_stays_finite():
    x = correlated()
    whitening = whitened(x, normalize=True)
    np.testing.assert_allclose(np.linalg.norm(whitening.transform(x), axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(whitening.transform(whitening.mean[None]), 0)


def test_the_sign_of_components_is_fixed():
    x = correlated()
    for moments in (Moments.of(x), Moments.of(x[::-1])):
        projection = Whitening.fit(
            moments, num_components=4, whiten=False, normalize=False
        ).projection
        peaks = np.abs(projection).argmax(axis=0)
        assert (projection[peaks, np.arange(4)] > 0).all()


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones((9, 3), "float32"), "9 embeddings are all the same"),
        (np.array([[0.0, 1.0], [np.nan, 0.0]]), "1 of 2 embeddings are not finite"),
        (np.ones(3), r"must be \(clips, width\), not \(3,\)"),
        (np.ones((1, 3)), "1 embeddings are all the same"),
    ],
)
def test_embeddings_that_cannot_be_whitened_are_refused_in_a_sentence(x, message):
    with pytest.raises(ValueError, match=message):
        whitened(x)


def test_embeddings_of_another_width_do_not_fit():
    with pytest.raises(ValueError, match=r"\(2, 5\) do not fit a whitening of width 12"):
        whitened(correlated()).transform(np.zeros((2, 5), "float32"))


# --- backends ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CPU_BACKENDS)
def test_separated_clusters_are_found(name):
    x, truth = blobs()
    fitted = get(name)(x, num_clusters=6, **DEFAULTS)
    labels, confidence = assign(x, fitted.centroids)
    assert agreement(truth, labels) == 1.0
    assert fitted.inertia == pytest.approx(inertia(x, fitted.centroids), rel=1e-4)
    assert confidence.min() > 0.5
    assert (fitted.backend, fitted.centroids.dtype) == (name, np.float32)


def test_backends_agree_in_inertia_where_clusters_overlap():
    x = np.random.default_rng(3).normal(size=(1500, 6)).astype("float32")
    ours, theirs = (get(name)(x, num_clusters=20, **DEFAULTS).inertia for name in CPU_BACKENDS)
    assert ours == pytest.approx(theirs, rel=0.02)


@pytest.mark.parametrize("name", CPU_BACKENDS)
def test_the_same_seed_gives_the_same_centroids_and_another_seed_others(name):
    x = np.random.default_rng(4).normal(size=(400, 5)).astype("float32")
    options = DEFAULTS | {"num_clusters": 12}
    first, again = (get(name)(x, **options) for _ in range(2))
    other = get(name)(x, **options | {"seed": 1})
    np.testing.assert_array_equal(first.centroids, again.centroids)
    assert np.abs(first.centroids - other.centroids).max() > 1e-3


@pytest.mark.parametrize("name", CPU_BACKENDS)
def test_every_seed_of_a_config_is_accepted(name):
    x, _ = blobs(60, 3)
    for seed in (-1, 2**40):
        assert len(get(name)(x, num_clusters=3, **DEFAULTS | {"seed": seed}).centroids) == 3


@pytest.mark.parametrize("name", ["cuml", *CPU_BACKENDS])
@pytest.mark.parametrize(
    ("x", "num_clusters", "message"),
    [
        (np.zeros((5, 2), "float32"), 6, "num_clusters=6 is more than the 5 clips"),
        (np.zeros((5, 2), "float32"), 1, "num_clusters=1 makes no pseudo-labels"),
        (np.full((5, 2), np.inf, "float32"), 2, "needs a finite"),
    ],
)
def test_what_cannot_be_clustered_is_refused_in_a_sentence(name, x, num_clusters, message):
    with pytest.raises(ValueError, match=message):
        get(name)(x, num_clusters=num_clusters, **DEFAULTS)


@pytest.mark.parametrize("name", CPU_BACKENDS)
def test_more_restarts_never_leave_a_worse_clustering(name):
    x = np.random.default_rng(5).normal(size=(300, 4)).astype("float32")
    losses = [
        get(name)(x, num_clusters=40, **DEFAULTS | {"num_init": n}).inertia for n in (1, 2, 8)
    ]
    assert losses[0] >= losses[1] >= losses[2]
    assert losses[2] < losses[0]


def test_more_iterations_lower_the_inertia_and_a_converged_start_stops():
    x = np.random.default_rng(6).normal(size=(400, 4)).astype("float32")
    short, long = (
        get("torch")(x, num_clusters=10, num_iterations=n, seed=0, num_init=1) for n in (1, 500)
    )
    assert short.num_iterations == 1
    assert 1 < long.num_iterations < 500
    assert long.inertia < short.inertia


def test_centroids_of_a_converged_clustering_are_the_means_of_their_clips():
    x = np.random.default_rng(7).normal(size=(300, 3)).astype("float32")
    fitted = get("torch")(x, num_clusters=5, **DEFAULTS | {"num_iterations": 500})
    labels, _ = assign(x, fitted.centroids)
    means = np.stack([x[labels == cluster].mean(axis=0) for cluster in range(5)])
    np.testing.assert_allclose(fitted.centroids, means, atol=1e-5)


def test_clusters_far_from_the_origin_are_found_all_the_same():
    x, truth = blobs(spread=0.8)
    x /= 8
    fitted = get("torch")(x + np.float32(5000), num_clusters=6, **DEFAULTS)
    near = get("torch")(x, num_clusters=6, **DEFAULTS)
    assert fitted.inertia == pytest.approx(near.inertia, rel=0.02)
    labels, _ = assign(x, fitted.centroids - np.float32(5000))
    assert agreement(truth, labels) == 1.0


def test_the_size_of_chunks_does_not_change_the_clusters(monkeypatch):
    x = np.random.default_rng(8).normal(size=(500, 6)).astype("float32")
    whole = get("torch")(x, num_clusters=9, **DEFAULTS)
    monkeypatch.setattr(torch_backend, "CHUNK", 64)
    chunked = get("torch")(x, num_clusters=9, **DEFAULTS)
    np.testing.assert_allclose(chunked.centroids, whole.centroids, atol=1e-5)


def test_a_centroid_that_starts_far_from_all_clips_still_ends_up_with_some():
    x = torch.from_numpy(blobs(120, 3)[0])
    start = torch.cat([x[:2], torch.full((1, 8), 1e3)])
    run = torch_backend._lloyd(x, start, 20)
    labels, _ = assign(x.numpy(), run.centroids.numpy())
    assert np.bincount(labels, minlength=3).tolist() == [40, 40, 40]


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
@pytest.mark.parametrize("name", CPU_BACKENDS)
def test_fewer_distinct_clips_than_clusters_leave_empty_clusters_that_are_dropped(name):
    x = np.repeat(np.eye(3, dtype="float32"), 20, axis=0)
    fitted = get(name)(x, num_clusters=8, **DEFAULTS)
    labels, kept = drop_empty(assign(x, fitted.centroids)[0], 8)
    assert len(kept) == 3
    assert agreement(np.repeat(np.arange(3), 20), labels) == 1.0


def test_cuml_is_asked_for_what_the_config_says(monkeypatch):
    asked = {}

    class KMeans:
        cluster_centers_, inertia_, n_iter_ = np.ones((4, 2)), np.float64(1.5), np.int64(7)

        def __init__(self, **kwargs):
            asked.update(kwargs)

        def fit(self, x):
            asked["x"] = x

    package, module = ModuleType("cuml"), ModuleType("cuml.cluster")
    package.__version__, module.KMeans = "26.10", KMeans
    monkeypatch.setitem(sys.modules, "cuml", package)
    monkeypatch.setitem(sys.modules, "cuml.cluster", module)
    x = np.asfortranarray(np.arange(20.0).reshape(10, 2))
    fitted = get("cuml")(x, num_clusters=4, num_iterations=20, seed=-1, num_init=3)
    given = asked.pop("x")
    assert asked == {
        "n_clusters": 4,
        "init": "scalable-k-means++",
        "n_init": 3,
        "max_iter": 20,
        "random_state": 2**32 - 1,
        "output_type": "numpy",
    }
    assert given.dtype == np.float32 and given.flags.c_contiguous
    assert (fitted.inertia, fitted.num_iterations, fitted.version) == (1.5, 7, "26.10")
    assert fitted.centroids.dtype == np.float32


@pytest.mark.parametrize(
    ("name", "num_gpus", "has_cuml", "expected"),
    [
        ("auto", 0, False, "torch"),
        ("auto", 0, True, "torch"),
        ("auto", 1, False, "torch"),
        ("auto", 1, True, "cuml"),
        ("cuml", 2, True, "cuml"),
        ("torch", 1, True, "torch"),
        ("sklearn", 0, True, "sklearn"),
    ],
)
def test_the_backend_follows_the_devices_and_not_what_can_be_imported(
    name, num_gpus, has_cuml, expected
):
    assert resolve(name, num_gpus, has_cuml) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cuml", 0, True), "needs a GPU and this run has none"),
        (("cuml", 1, False), "install unfused"),
        (("faiss", 1, True), "no clustering backend 'faiss'"),
    ],
)
def test_a_backend_that_cannot_run_is_refused_before_work_starts(arguments, message):
    with pytest.raises(ConfigError, match=message):
        resolve(*arguments)
    with pytest.raises(ConfigError, match="resolve"):
        get("auto")


# --- spherical k-means -------------------------------------------------------------------------


def unit_rows(num_rows: int, width: int = 12, seed: int = 0) -> torch.Tensor:
    rows = torch.randn(num_rows, width, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(rows)


def spherical_in_plain_loops(x, centroids, num_iterations):
    for _ in range(num_iterations):
        labels = [int(np.argmax([row @ centroid for centroid in centroids])) for row in x]
        sums = np.zeros_like(centroids)
        for row, label in zip(x, labels, strict=True):
            sums[label] += row
        centroids = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    return centroids, [int(np.argmax(centroids @ row)) for row in x]


def test_spherical_kmeans_equals_plain_loops():
    x = unit_rows(150)
    centroids, labels = spherical_kmeans(
        x, num_clusters=6, num_iterations=4, generator_seed=0, centroids=x[:6].clone()
    )
    expected, truth = spherical_in_plain_loops(x.double().numpy(), x[:6].double().numpy(), 4)
    np.testing.assert_allclose(centroids.numpy(), expected, atol=1e-5)
    assert labels.tolist() == truth


def test_spherical_kmeans_raises_the_mean_similarity_with_every_iteration():
    x = unit_rows(200)
    similarity = []
    for n in range(5):
        c, labels = spherical_kmeans(x, num_clusters=8, num_iterations=n, generator_seed=3)
        similarity.append(float((x * c[labels]).sum(dim=1).mean()))
    assert similarity == sorted(similarity)
    assert similarity[-1] > similarity[0] + 0.05


def test_spherical_kmeans_starts_from_rows_that_the_seed_decides():
    x = unit_rows(50)
    options = {"num_clusters": 7, "num_iterations": 0}
    first, again, other = (
        spherical_kmeans(x, generator_seed=seed, **options)[0] for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    ids = {int((x == row).all(dim=1).nonzero()) for row in first}
    assert len(ids) == 7


def test_an_empty_spherical_cluster_takes_half_of_the_largest():
    x = torch.cat([unit_rows(90, seed=1).abs(), -unit_rows(10, seed=2).abs()])
    start = torch.stack([x[0], x[95], torch.zeros(12)])
    start[2, 0], start[2, 1] = -1.0, 1.0
    x[:, :2] = x[:, :2].abs() * torch.tensor([1.0, -1.0]) * 0.01
    x = torch.nn.functional.normalize(x)
    _, before = spherical_kmeans(
        x, num_clusters=3, num_iterations=0, generator_seed=0, centroids=start
    )
    assert torch.bincount(before, minlength=3)[2] == 0
    c, labels = spherical_kmeans(
        x, num_clusters=3, num_iterations=3, generator_seed=0, centroids=start
    )
    sizes = torch.bincount(labels, minlength=3)
    assert (sizes > 0).all() and sizes[1] == 10
    np.testing.assert_allclose(c.norm(dim=1).numpy(), 1, atol=1e-6)


def test_more_spherical_clusters_than_rows_is_refused():
    with pytest.raises(ValueError, match="9 clusters need as many rows, and there are 5"):
        spherical_kmeans(unit_rows(5), num_clusters=9, num_iterations=1, generator_seed=0)


SPLITS = {"uneven": 71, "a rank without rows": 230, "more than half": 200}
CASES = [("random", 230, 16), ("crowded", 230, 150)]


def _error_of(*args, **kwargs) -> str:
    try:
        spherical_kmeans(*args, generator_seed=0, num_iterations=1, **kwargs)
    except ValueError as error:
        return str(error)
    return "no error"


def _rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    results = {}
    for split, border in SPLITS.items():
        for case, num_rows, k in CASES:
            start, stop = ((0, border), (border, num_rows))[rank]
            results[split, case] = spherical_kmeans(
                unit_rows(num_rows)[start:stop],
                num_clusters=k,
                num_iterations=10,
                generator_seed=5,
                start=start,
            )
    results["too many"] = _error_of(unit_rows(5), num_clusters=11, start=5 * rank)
    results["overlap"] = _error_of(unit_rows(5), num_clusters=10, start=4 * rank)
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory) -> list[dict]:
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(_rank, (str(folder),), nprocs=2)
    return [torch.load(Path(folder, f"{rank}.pt")) for rank in range(2)]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize(("case", "num_rows", "k"), CASES)
def test_two_workers_cluster_as_one_process_that_holds_all_rows(
    two_ranks, split, case, num_rows, k
):
    centroids, labels = spherical_kmeans(
        unit_rows(num_rows), num_clusters=k, num_iterations=10, generator_seed=5
    )
    for found, _ in (rank[split, case] for rank in two_ranks):
        np.testing.assert_allclose(found.numpy(), centroids.numpy(), atol=1e-5)
    together = torch.cat([rank[split, case][1] for rank in two_ranks])
    assert torch.equal(together, labels)


def test_workers_whose_rows_make_no_sense_all_fail_together_and_none_hangs(two_ranks):
    for rank in two_ranks:
        assert "11 clusters need as many rows, and there are 10" in rank["too many"]
        assert "do not tile 0..10" in rank["overlap"]


# --- assignment --------------------------------------------------------------------------------


def test_assignment_is_brute_force_nearest_with_the_relative_margin():
    rng = np.random.default_rng(9)
    x, centroids = rng.normal(size=(80, 4)), rng.normal(size=(11, 4))
    labels, confidence = assign(x.astype("float32"), centroids.astype("float32"))
    assert (labels.dtype, confidence.dtype) == (np.int32, np.float32)
    for row, label, margin in zip(x, labels, confidence, strict=True):
        distances = np.array([np.sqrt(((row - centroid) ** 2).sum()) for centroid in centroids])
        first, second = np.sort(distances)[:2]
        assert label == distances.argmin()
        assert margin == pytest.approx((second - first) / second, abs=1e-5)


def test_confidence_is_one_on_a_centroid_and_zero_between_two():
    centroids = np.array([[0, 0], [2, 0], [0, 9]], "float32")
    x = np.array([[2, 0], [1, 0], [1.5, 0]], "float32")
    labels, confidence = assign(x, centroids)
    assert labels.tolist() == [1, 0, 1]
    np.testing.assert_allclose(confidence, [1, 0, 2 / 3], atol=1e-6)
    twins = np.zeros((2, 2), "float32")
    assert assign(twins, twins)[1].tolist() == [0, 0]


def test_assignment_holds_a_bounded_number_of_distances(monkeypatch):
    rng = np.random.default_rng(10)
    x = rng.normal(size=(4000, 4)).astype("float32")
    centroids = rng.normal(size=(500, 4)).astype("float32")
    whole = assign(x, centroids)
    monkeypatch.setattr("unfused.clustering.assign.CHUNK", 1 << 14)
    tracemalloc.start()
    chunked = assign(x, centroids)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < x.nbytes * 500 / 4 / 8
    np.testing.assert_array_equal(chunked[0], whole[0])
    np.testing.assert_allclose(chunked[1], whole[1], atol=1e-6)


def test_assignment_refuses_one_centroid_and_rows_of_another_width():
    with pytest.raises(ValueError, match="two centroids or more"):
        assign(np.zeros((3, 2), "float32"), np.zeros((1, 2), "float32"))
    with pytest.raises(ValueError, match="whiten them"):
        assign(np.zeros((3, 5), "float32"), np.zeros((2, 2), "float32"))


# --- the model ---------------------------------------------------------------------------------


@pytest.fixture
def model() -> ClusterModel:
    x = correlated()
    whitening = whitened(x, num_components=4, normalize=True)
    fitted = get("torch")(whitening.transform(x), num_clusters=7, **DEFAULTS)
    return ClusterModel(whitening, fitted.centroids)


def test_a_saved_model_labels_new_clips_exactly_as_before(model):
    restored = ClusterModel.from_bytes(model.to_bytes())
    new = correlated(60, seed=11)
    for ours, theirs in zip(model.label(new), restored.label(new), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert restored.whitening.explained == model.whitening.explained
    assert restored.whitening.normalize is True
    assert restored.num_clusters == 7


def test_a_model_whose_arrays_are_views_is_saved_right(model):
    projection = np.asfortranarray(model.whitening.projection)
    viewed = ClusterModel(replace(model.whitening, projection=projection), model.centroids[::-1])
    restored = ClusterModel.from_bytes(viewed.to_bytes())
    np.testing.assert_array_equal(restored.whitening.projection, projection)
    np.testing.assert_array_equal(restored.centroids, model.centroids[::-1])


def _rewritten(model: ClusterModel, drop: str = "", **changes) -> bytes:
    data = model.to_bytes()
    tensors = {name: t for name, t in load(data).items() if name != drop} | changes
    settings = '{"normalize": true, "explained": 1.0}'
    return save(tensors, {"format": "unfused.clusters/1", "settings": settings})


def test_a_model_with_missing_unexpected_or_ill_shaped_tensors_is_refused(model):
    assert ClusterModel.from_bytes(_rewritten(model)).num_clusters == 7
    bad = {
        "tensors mean, projection;": _rewritten(model, drop="centroids"),
        "extra": _rewritten(model, extra=np.zeros(2)),
        "shapes disagree": _rewritten(model, centroids=np.zeros((7, 3), "float32")),
        "format None": save({"mean": np.zeros(2)}),
        "not a cluster model": model.to_bytes()[:-9],
        r"not a cluster model \(": b"nonsense",
    }
    for message, data in bad.items():
        with pytest.raises(ValueError, match=message):
            ClusterModel.from_bytes(data)


def test_empty_clusters_are_dropped_and_the_model_agrees_with_the_new_numbers(model):
    x = correlated()
    far = np.full((2, 4), 50, "float32")
    padded = np.concatenate([far[:1], model.centroids[:3], far[1:], model.centroids[3:]])
    old, _ = ClusterModel(model.whitening, padded).label(x)
    labels, kept = drop_empty(old, 9)
    assert kept.tolist() == [1, 2, 3, 5, 6, 7, 8]
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(kept[labels], old)
    smaller = ClusterModel(model.whitening, padded).keep(kept)
    np.testing.assert_array_equal(smaller.label(x)[0], labels)


def test_labels_of_one_cluster_or_of_another_clustering_are_refused():
    with pytest.raises(ValueError, match="Only 1 of 5 clusters"):
        drop_empty(np.full(10, 3), 5)
    with pytest.raises(ValueError, match=r"from 0 to 5, outside 0\.\.4"):
        drop_empty(np.array([0, 5]), 5)
    with pytest.raises(ValueError, match="from -1 to 2"):
        drop_empty(np.array([-1, 2]), 5)


def test_the_description_warns_of_small_and_empty_clusters_with_the_numbers():
    x, _ = blobs(60, 3)
    fitted = get("torch")(x, num_clusters=4, **DEFAULTS)
    described = describe(fitted, np.array([20, 0, 25, 15]), num_fitted=60)
    assert described.sizes == (20, 25, 15)
    assert (described.num_clusters, described.num_nonempty) == (4, 3)
    assert described.points_per_centroid == 15.0
    assert described.inertia == fitted.inertia
    few, empty = described.warnings
    assert few == (
        "k-means saw 15 points per centroid; 39 or more give steady clusters: add clips"
    )
    more = describe(fitted, np.array([100, 100, 100, 100]), num_fitted=120).warnings
    assert more[0].endswith("steady clusters: try cluster.num_clusters=3")
    assert "1 of 4 clusters are empty" in empty and "3 are left" in empty
    quiet = describe(fitted, np.array([39, 39, 39, 39]), num_fitted=156)
    assert quiet.warnings == ()
    with pytest.raises(ValueError, match="Only 1 of 4"):
        describe(fitted, np.array([9, 0, 0, 0]), num_fitted=9)


def test_a_stored_clustering_labels_its_own_clips_as_it_says_even_after_empty_clusters(tmp_path):
    points = np.repeat(np.eye(3, 4, dtype=np.float32), [5, 4, 3], axis=0)
    table = pa.table({"clip": np.arange(12), "embedding": points.tolist()})
    folder = Folder.of(tmp_path / "embeddings")
    folder.filesystem.create_dir(folder.path, recursive=True)
    pq.write_table(table, tmp_path / "embeddings" / "part.parquet")
    embeddings = Artifact(folder, "key", EmbedFacts(num_clips=12, embedding_dim=3, layer="last"))
    config = ClusterConfig(backend="torch", whiten=False, normalize=False, num_components=0)
    out = Folder.of(tmp_path / "clusters")
    facts = _cluster(embeddings, config, 6, out)
    assert facts.num_nonempty == 3
    model = ClusterModel.from_bytes(out.read("clusters.safetensors"))
    labels, confidence = model.label(points)
    np.testing.assert_array_equal(read_npy(out, "labels.npy"), labels)
    np.testing.assert_array_equal(read_npy(out, "confidence.npy"), confidence)
    np.testing.assert_allclose(confidence, 1.0, atol=1e-3)


def test_many_rows_cost_no_quality_for_being_seeded_on_a_pool():
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((40, 16))
    x = (centres[rng.integers(0, 40, 9000)] + rng.standard_normal((9000, 16))).astype("float32")
    assert len(x) > MIN_SEEDING_ROWS > SEEDING_ROWS * 32
    settings = {"num_clusters": 32, "num_iterations": 20, "seed": 0, "num_init": 1}
    fast, plain = torch_backend.fit(x, **settings), get("sklearn")(x, **settings)
    assert fast.inertia <= 1.01 * plain.inertia
    assert fast.num_iterations <= 20
    distances = ((x[:, None] - fast.centroids[None]) ** 2).sum(2).min(1)
    assert fast.inertia == pytest.approx(distances.sum(), rel=1e-5)


def test_the_clips_that_k_means_sees_are_whitened_rows_of_the_embeddings(tmp_path):
    x = correlated(500)
    for clips in np.array_split(np.random.default_rng(3).permutation(500), 4):
        write_embeddings(Folder.of(tmp_path), clips, x[clips].astype(np.float32))
    embeddings = Artifact(
        Folder.of(tmp_path), "embeddings", EmbedFacts(num_clips=500, embedding_dim=8, layer="last")
    )
    whitening = whitened(x)
    config = ClusterConfig(max_points_per_centroid=10)
    few = _sample(embeddings, config, 6, whitening)
    every = whitening.transform(x.astype(np.float32))
    apart = np.abs(few[:, None] - every[None]).max(2)
    assert few.shape == (60, every.shape[1]) and apart.min(1).max() < 1e-3
    assert len(set(apart.argmin(1))) == 60
    assert len(_sample(embeddings, config, 60, whitening)) == 500
