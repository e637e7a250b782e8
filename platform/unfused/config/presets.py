"""Named sets of changes to the defaults.

The rule of this file: a preset is changes by dotted name, and goes through the one door.
"""

from __future__ import annotations

from typing import Any

from unfused.config.changes import override
from unfused.config.section import ConfigError
from unfused.config.sections import Config

FAITHFUL: dict[str, Any] = {
    "rounds": 1,
    "audio.crop_seconds": 0.95,
    "pretrain.objective": "decar_v2",
    "pretrain.epochs": 90,
    "pretrain.batch_size": 512,
    "pretrain.optimizer": "larc",
    "pretrain.learning_rate": 0.005,
    "pretrain.weight_decay": 1e-6,
    "pretrain.warmup_fraction": 0.0,
    "pretrain.schedule": "constant",
    "pretrain.augment.mixup_ratio": 0.4,
    "pretrain.augment.mixup_bank": 2048,
    "pretrain.augment.canvas_time": 1.5,
    "pretrain.augment.frequency_scale": (0.6, 1.5),
    "pretrain.augment.time_scale": (0.6, 1.5),
    "pretrain.projector_hidden": 2048,
    "pretrain.projector_dim": 512,
    "pretrain.temperature": 1.0,
    "pretrain.num_prototypes": 1024,
    "pretrain.kmeans_iterations": 10,
    "teacher.kind": "audio_ntt",
    "teacher.embedding_dim": 2048,
    "teacher.dropout": 0.3,
    "student.kind": "audio_ntt",
    "student.embedding_dim": 2048,
    "student.dropout": 0.3,
    "embed.layer": "last",
    "embed.num_crops": 1,
    "teachers.clustered": "encoders",
    "cluster.num_clusters": "classes",
    "cluster.num_components": 128,
    "cluster.whiten": True,
    "cluster.normalize": True,
    "cluster.num_iterations": 20,
    "cluster.num_init": 1,
    "distill.epochs": 50,
    "distill.batch_size": 256,
    "distill.optimizer": "sgd",
    "distill.learning_rate": 0.007,
    "distill.weight_decay": 1e-4,
    "distill.warmup_fraction": 0.0,
    "distill.schedule": "constant",
    "distill.shallow_weight": 0.7,
    "distill.kl_weight": 0.3,
    "distill.cosine_weight": 0.003,
    "distill.temperature": 1.0,
    "distill.scale_kl": False,
    "distill.detach_teacher": False,
    "distill.head_width": 0,
    "finetune.mode": "linear",
    "finetune.num_crops": 1,
    "finetune.pooling": "mean",
    "finetune.standardize": False,
    "finetune.power": 1.0,
    "finetune.epochs": 30,
    "finetune.batch_size": 32,
    "finetune.optimizer": "adam",
    "finetune.learning_rate": 1e-3,
    "finetune.weight_decay": 0.0,
    "finetune.encoder_weight_decay": 0.0,
    "finetune.warmup_fraction": 0.0,
    "finetune.schedule": "constant",
}
"""The published method; the research code's values where it and the toolkit differ."""

DEMO: dict[str, Any] = {
    "rounds": 1,
    "teacher.embedding_dim": 256,
    "student.embedding_dim": 256,
    "pretrain.epochs": 2,
    "pretrain.batch_size": 32,
    "cluster.num_clusters": 32,
    "distill.epochs": 4,
    "distill.batch_size": 32,
    "finetune.labels_per_class": 5,
    "finetune.num_repeats": 3,
    "finetune.encoder_epochs": 8,
    "selftrain.epochs": 3,
}
"""Small and quick: all stages on the embedded corpus on a laptop."""

LARGE: dict[str, Any] = {
    "rounds": 2,
    "clusterings": 3,
    "teachers.clustered": "encoders",
    "pretrain.objective": "nt_xent",
    "pretrain.epochs": 100,
    "pretrain.batch_size": 512,
    "pretrain.learning_rate": 2e-3,
    "pretrain.augment.mixup_bank": 2048,
    "cluster.num_clusters": 256,
    "cluster.num_components": 128,
    "bootstrap.epochs": 30,
    "bootstrap.batch_size": 256,
    "bootstrap.learning_rate": 2e-3,
    "distill.epochs": 30,
    "distill.batch_size": 256,
    "distill.learning_rate": 2e-3,
    "selftrain.epochs": 10,
    "selftrain.batch_size": 128,
}
"""For a GPU and hundreds of hours: 200 windows of every corpus clip, and of every training clip of
the task 90, and 10 more for every draw of the labels."""

PRESETS: dict[str, dict[str, Any]] = {
    "recommended": {},
    "faithful": FAITHFUL,
    "demo": DEMO,
    "large": LARGE,
}


def preset(name: str) -> Config:
    """The configuration that `name` stands for; `recommended` is the defaults."""
    if name not in PRESETS:
        raise ConfigError(f"There is no preset {name!r}; choose one of {', '.join(PRESETS)}.")
    return override(Config(), PRESETS[name])
