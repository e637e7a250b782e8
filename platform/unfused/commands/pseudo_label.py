"""`unfused pseudo-label`: the clusters of new recordings, by the whitening and the centroids that
a run has fitted.

The rule of this file: a recording goes the way that the clustered clips went, through the same
teacher.

Axes: S samples of a clip.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unfused import clustering, cores, teachers
from unfused.audio.samples import Cut
from unfused.commands.named import named
from unfused.commands.places import usable
from unfused.commands.predict import finish, listed, usable_writer
from unfused.config import AudioConfig, ConfigError, EmbedConfig
from unfused.inference.files import blocks, told_of
from unfused.inference.folder import read_facts
from unfused.inference.hearing import Hearing
from unfused.inference.tables import OF_ANY_COLUMNS
from unfused.store import KEY, Folder, Store
from unfused.teachers import Teacher, TeacherFacts

COLUMNS = ("path", "digest", "cluster", "confidence", "reason")
"""`confidence` is the margin to the second nearest centroid, in [0, 1] (`clustering.assign`)."""
NODE = "cluster"
"""Whose clusters are meant where a model is named: those that the run's student learned."""


@dataclass(frozen=True)
class Clusters:
    """A clustering of a store, with the teacher whose embeddings it is of."""

    model: clustering.ClusterModel
    teacher: Teacher
    facts: TeacherFacts
    audio: AudioConfig
    """What the clips were that were clustered."""

    @classmethod
    def load(cls, store: Store, key: str) -> Clusters:
        """The clustering with a key.

        Raises:
            ConfigError: the store has none, or not what it was made of.
        """
        import torch

        embedded = _upstream(store, f"cluster/{key}", "embeddings")
        audio = _audio(store, _manifest(store, embedded)["inputs"]["clips"])
        taught = _manifest(store, embedded)["inputs"]["teacher"]
        config = EmbedConfig.model_validate(_manifest(store, embedded)["config"]["embed"])
        facts = _teacher(store, taught, audio, config)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return cls(
            clustering.ClusterModel.from_bytes(
                store.kept("cluster", key).read("clusters.safetensors")
            ),
            teachers.load(_folder(store, taught), facts, device),
            facts,
            audio,
        )

    def label(self, waves: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Int16 clips (S,), B of them, to clusters (B,) and confidence (B,)."""
        rows = self.teacher.embed(teachers.at_rate(waves, self.audio.sample_rate, self.facts))
        return self.model.label(rows)


def _manifest(store: Store, where: str) -> dict[str, Any]:
    stage, _, key = where.partition("/")
    found = store.manifest(stage, key)
    if found is None:
        raise ConfigError(
            f"{store.root.uri} has no {where}; name the run's store with --store, or run the"
            " pipeline again, which makes it."
        )
    return found


def _upstream(store: Store, where: str, name: str) -> str:
    return _manifest(store, where)["inputs"][name]


def _folder(store: Store, where: str) -> Folder:
    return store.kept(*where.split("/"))


def _audio(store: Store, clips: str) -> AudioConfig:
    where, _, part = clips.partition(":")
    return AudioConfig.model_validate(_manifest(store, where)["facts"]["parts"][part]["audio"])


def _teacher(store: Store, where: str, audio: AudioConfig, config: EmbedConfig) -> TeacherFacts:
    if where.startswith("teacher/"):
        facts = TeacherFacts.model_validate(_manifest(store, where)["facts"])
        return facts.settled(audio.sample_rate)
    cut = Cut(audio.crop_samples, config.num_crops)
    return teachers.own("own", audio.sample_rate, cut, config.layer)


def pseudo_label(
    name: str, store: str, tracking_uri: str | None, places: Sequence[str], out: str | None
) -> None:
    """Write the clusters of recordings.

    Args:
        name: of a clustering in the store (its key), or of a model.
        store: folder or URI of the artifacts.
        tracking_uri: MLflow, for a registered model.
        places: files, folders, manifests, as typed.
        out: a file's name, .csv, .parquet or .jsonl; none and "-" are CSV on the standard output.

    Raises:
        ConfigError: there are no such clusters or recordings, or `out` cannot be written.
    """
    if out is not None:
        usable_writer(out, OF_ANY_COLUMNS)
    kept, clips = usable(store), listed(places)
    key, made_in = _key(name, store, tracking_uri)
    if made_in and kept.manifest("cluster", key) is None:
        kept = Store.at(made_in)
    cores.prepare_process(cores.available_cpus())
    clusters = Clusters.load(kept, key)
    finish(_rows(clusters, clips), COLUMNS, len(clips), out)


def _key(name: str, store: str, tracking_uri: str | None) -> tuple[str, str]:
    """Of a clustering, or of the one that a model was made with; and the store of the latter's run.

    Raises:
        ConfigError: there is neither of this name, or the model's run made no clusters.
    """
    if KEY.fullmatch(name) and Store.at(store).manifest("cluster", name) is not None:
        return name, ""
    lineage = read_facts(named(name, store, tracking_uri)).lineage
    keys = lineage.get("keys", {})
    if NODE not in keys:
        raise ConfigError(f"The run of {name} made no clusters; name a cluster's key.")
    return keys[NODE], lineage.get("store", "")


def _rows(clusters: Clusters, clips: Iterable[str]) -> Iterator[dict[str, Any]]:
    audio = clusters.audio
    for block in blocks(Hearing(audio.sample_rate, channel=audio.channel), clips):
        heard = [one.wave for one in block if one.wave is not None]
        found = zip(*clusters.label(heard), strict=True) if heard else iter(())
        for one in block:
            told: dict[str, Any] = {**dict.fromkeys(COLUMNS), **told_of(one)}
            if one.wave is not None:
                cluster, confidence = next(found)
                told |= {"cluster": int(cluster), "confidence": float(confidence)}
            yield told
