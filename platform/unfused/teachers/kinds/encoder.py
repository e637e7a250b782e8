"""Encoders of this platform: another run's, by its key, or a registered model's.

Axes: B clips, S samples, D embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from unfused.audio.samples import Cut, Windows
from unfused.config import AudioConfig
from unfused.store import Folder, digest
from unfused.teachers.place import Place, slug
from unfused.teachers.protocol import Outside, TeacherFacts

if TYPE_CHECKING:
    import torch

    from unfused.models.clip_encoder import ClipEncoder

STAGES = ("pretrain", "distill", "finetune")
"""Whose artifacts have an encoder, in the order in which a key is looked up."""
ENCODER = "encoder"
"""The name of an encoder's files."""
HEAD = "head-00.json"
"""Of a classifier, whose first draw names the encoder that it sits on."""


def read(rest: str, place: Place) -> Outside:
    """See `unfused.teachers.read`."""
    if place.spec.startswith("models:"):
        return _outside(_registered(place), place, slug(rest.replace("/", "-")))
    if place.store is None:
        raise place.refuse("there is no store to look in; name one with --store.")
    for stage in STAGES:
        if rest and place.store.manifest(stage, rest) is not None:
            return _outside(place.store.kept(stage, rest), place, f"{stage}-{slug(rest)}")
    raise place.refuse(
        f"{place.store.root.uri} has no encoder with the key {rest!r}; name a key of"
        f" {', '.join(STAGES)} as a run prints them."
    )


def _registered(place: Place) -> Folder:
    if place.registered is None:
        raise place.refuse("there is no tracking to ask; set --tracking-uri.")
    return place.registered(place.spec)


def _outside(folder: Folder, place: Place, name: str) -> Outside:
    file = folder.read_json(HEAD)["encoder"] if folder.exists(HEAD) else ENCODER
    if not folder.exists(f"{file}.json"):
        raise place.refuse(f"{folder.uri} has no encoder; name a model that has one.")
    settings = folder.read_json(f"{file}.json")
    audio = AudioConfig.model_validate(settings["audio"])
    facts = TeacherFacts(
        kind="encoder",
        name=name,
        source=place.spec,
        sample_rate=audio.sample_rate,
        window_seconds=audio.crop_samples / audio.sample_rate,
        min_samples=audio.crop_samples,
        level="int16",
        pooling="mean",
        file=file,
        embedding_dim=settings["encoder"]["embedding_dim"],
    )
    return Outside(folder, _digest(folder, file), facts)


def _digest(folder: Folder, file: str) -> str:
    from hashlib import sha256

    parts = [folder.read(f"{file}.{suffix}") for suffix in ("json", "safetensors")]
    return digest(["encoder", *(sha256(part).hexdigest() for part in parts)])


def files(folder: Folder, facts: TeacherFacts) -> list[str]:
    """See `unfused.teachers.files`."""
    return [f"{facts.file}.json", f"{facts.file}.safetensors"]


def load(folder: Folder, facts: TeacherFacts, device: torch.device) -> Windowed:
    """See `unfused.teachers.load`."""
    from unfused.models.clip_encoder import ClipEncoder

    encoder = ClipEncoder.load(folder, facts.file).to(device).eval().for_inference()
    return Windowed(facts, encoder, device)


class Windowed:
    """An encoder with the windows that it looks at, as `embed` has them."""

    def __init__(self, facts: TeacherFacts, encoder: ClipEncoder, device: torch.device) -> None:
        assert facts.longest is not None
        self.cut, self.layer = Cut(facts.longest, facts.num_crops), facts.layer
        self.encoder, self.device = encoder, device
        self.embedding_dim = encoder.encoder.width(facts.layer)

    def embed(self, waves: Sequence[np.ndarray]) -> np.ndarray:
        """Whole int16 clips, (S,) each of any length, to (B, D) float32."""
        import torch

        from unfused.models.pooling import on_device

        with torch.inference_mode():
            windows = on_device(Windows.of([self.cut.windows(w) for w in waves]), self.device)
            return self.encoder.embed(windows, self.layer).cpu().numpy()
