"""Cluster: whiten the embeddings, run k-means, label every clip.

Three passes over the embeddings, a file of them in memory at a time: moments for the whitening, a
bounded sample for k-means, labels for all.

Axes: N clips, B clips of one file, D embedding, P whitened components, K clusters.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from unfused import clustering, data
from unfused.config import ClusterConfig, ConfigError
from unfused.data import read_embeddings
from unfused.events import Event, Note
from unfused.stages.access import Workers
from unfused.stages.contract import Build, Built, Stage
from unfused.stages.embed import EmbedFacts
from unfused.store import Artifact, Folder, npy


class ClusterFacts(clustering.Description):
    """Of a clustering: what it came to, and how it was made."""

    num_components: int
    explained_variance: float
    mean_confidence: float
    clustering_seconds: float = 0.0


def check(config: Mapping[str, Any], parts: Mapping[str, Any]) -> None:
    """Refuse more clusters than clips before anything is trained.

    Raises:
        ConfigError: with the remedy.
    """
    clips = parts["clips"].num_clips
    k = config["cluster"].num_clusters
    if isinstance(k, int) and k > clips:
        raise ConfigError(
            f"cluster.num_clusters={k} is more than the {clips} training clips of the task;"
            f" set it to {clips} or less."
        )


def run(builds: Sequence[Build], workers: Workers) -> list[Built]:
    calls = {
        build.node: (
            build.inputs["embeddings"],
            build.config["cluster"],
            num_clusters(build),
            build.out,
            build.node,
        )
        for build in builds
    }
    return workers.call(cluster_embeddings, calls)


def num_clusters(build: Build) -> int:
    """k as a number: `classes` is resolved by the labels that the node then has as an input."""
    config: ClusterConfig = build.config["cluster"]
    if config.num_clusters == "classes":
        return len(build.inputs["labels"].facts.classes)
    return config.num_clusters


def cluster_embeddings(
    embeddings: Artifact[EmbedFacts],
    config: ClusterConfig,
    k: int,
    out: Folder,
    node: str,
    emit: Callable[[Event], None],
) -> Built:
    """The whole stage on one worker, on its GPU where the backend wants one."""
    clustering.get(config.backend)  # Its imports are no clustering.
    began = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        facts = _cluster(embeddings, config, k, out)
    of_whitening = tuple(str(w.message) for w in caught if w.category is UserWarning)
    for setting, told in (("num_components", of_whitening), ("num_clusters", facts.warnings)):
        for text in told:
            emit(Note(text, node, "warning", f"cluster.{setting}"))
    seconds = time.perf_counter() - began
    more = {"warnings": of_whitening + facts.warnings, "clustering_seconds": round(seconds, 3)}
    return Built(facts.model_copy(update=more))


def _cluster(
    embeddings: Artifact[EmbedFacts], config: ClusterConfig, k: int, out: Folder
) -> ClusterFacts:
    whitening = clustering.Whitening.fit(
        data.moments(embeddings.folder),
        num_components=config.num_components or None,
        whiten=config.whiten,
        normalize=config.normalize,
    )
    sample = _sample(embeddings, config, k, whitening)
    fitted = clustering.get(config.backend)(
        sample,
        num_clusters=k,
        num_iterations=config.num_iterations,
        seed=config.seed,
        num_init=config.num_init,
    )
    model = clustering.ClusterModel(whitening, fitted.centroids)
    labels, confidence = _label_all(embeddings, model)
    described = clustering.describe(
        fitted, np.bincount(labels, minlength=k), num_fitted=len(sample)
    )
    labels, kept = clustering.drop_empty(labels, k)
    if len(kept) < k:
        # A dropped centroid may have been second-nearest: margins are to those that are left.
        model = model.keep(kept)
        labels, confidence = _label_all(embeddings, model)
    out.write("clusters.safetensors", model.to_bytes())
    out.write("labels.npy", npy(labels))
    out.write("confidence.npy", npy(confidence))
    return ClusterFacts(
        **described.model_dump(),
        num_components=int(whitening.projection.shape[1]),
        explained_variance=float(whitening.explained),
        mean_confidence=float(confidence.mean()),
    )


def _sample(
    embeddings: Artifact[EmbedFacts], config: ClusterConfig, k: int, whitening: clustering.Whitening
) -> np.ndarray:
    """Whitened embeddings (n, P) of at most `max_points_per_centroid` clips for each centroid."""
    total = embeddings.facts.num_clips
    wanted = min(total, k * config.max_points_per_centroid)
    chosen = np.random.default_rng(config.seed).choice(total, wanted, replace=False)
    keep = np.zeros(total, bool)
    keep[chosen] = True
    return np.concatenate(
        [
            whitening.transform(values[keep[clip]])
            for clip, values in read_embeddings(embeddings.folder)
        ]
    )


def _label_all(
    embeddings: Artifact[EmbedFacts], model: clustering.ClusterModel
) -> tuple[np.ndarray, np.ndarray]:
    total = embeddings.facts.num_clips
    labels, confidence = np.zeros(total, np.int32), np.zeros(total, np.float32)
    for clip, values in read_embeddings(embeddings.folder):
        labels[clip], confidence[clip] = model.label(values)
    return labels, confidence


STAGE = Stage(version=5, facts=ClusterFacts, access=Workers, run=run, check=check)
