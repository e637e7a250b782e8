"""Every knob once: name, type, default, range, meaning.

The rule of this room: a knob is a typed field of one frozen section, and every change to one, from
the command line, a search space or a test, goes through `override`. What changes numbers is here
(and is hashed); where a run happens is in `RunOptions` (and is not).
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

Arm = Literal["scratch", "teacher", "clusterfit", "unfused"]
Layer = Literal["block1", "block2", "block3", "last"]
Precision = Literal["auto", "float32", "bfloat16"]
Optimizer = Literal["adamw", "adam", "sgd", "larc"]

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Weight = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=1)]
Range = tuple[Positive, Positive]
MAX_SAMPLES = 2**30 - 2**10
"""Of one clip: a page in Parquet is smaller than 2 GiB."""


class ConfigError(ValueError):
    """The request is wrong; the message is one sentence that names the remedy."""


class Section(BaseModel):
    """A frozen group of knobs; a stage's identity is the hash of the sections it reads."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class DataConfig(Section):
    valid_fraction: Annotated[float, Field(gt=0, lt=0.5)] = 0.15
    """Share of the clips held out for validation where a manifest has no such split."""
    test_fraction: Annotated[float, Field(gt=0, lt=0.5)] = 0.15
    """Share of the clips held out for testing where a manifest has no `split` column."""
    split_seed: int = 0
    """Seed of that split."""
    allow_overlap: bool = False
    """Accept clips of train or corpus whose bytes are also in valid or test."""


class AudioConfig(Section):
    sample_rate: Annotated[int, Field(ge=4000, le=192000)] = 16000
    """Hz, after resampling."""
    n_fft: Annotated[int, Field(ge=64)] = 1024
    """Samples in the STFT window."""
    hop_length: Annotated[int, Field(ge=16)] = 160
    """Samples between frames."""
    n_mels: Annotated[int, Field(ge=8, multiple_of=8)] = 64
    """Mel bands (the encoder halves them three times)."""
    f_min: Weight = 60.0
    """Hz, lower edge of the first band."""
    f_max: Positive = 7800.0
    """Hz, upper edge of the last band; at most half the sample rate."""
    crop_seconds: Annotated[float, Field(ge=0.1, le=60.0)] = 0.95
    """Length of the window that is learned and scored; shorter clips are zero-padded."""

    @property
    def crop_samples(self) -> int:
        return round(self.crop_seconds * self.sample_rate)


class IngestConfig(Section):
    max_seconds: Positive = 600.0
    """Clips longer than this are quarantined."""
    max_bad_fraction: Fraction = 0.05
    """A run fails if a larger share of the clips cannot be used."""
    clips_per_shard: Count = 512
    """Clips in one Parquet shard."""
    shuffle_seed: int = 0
    """Seed of the one shuffle that fixes the order of clips in the shards."""


class EncoderConfig(Section):
    embedding_dim: Annotated[int, Field(ge=8, le=16384)] = 2048
    """Width of the clip vector (d)."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Dropout in the encoder's fully connected part."""


class Training(Section):
    """The knobs that every learned stage shares."""

    epochs: Count
    """Passes over the clips."""
    batch_size: Annotated[int, Field(ge=2)]
    """Clips in one optimiser step, over all workers."""
    optimizer: Optimizer = "adamw"
    """adamw, adam, sgd (momentum 0.9), or larc (sgd with layer-wise rate control)."""
    learning_rate: Positive
    """Peak learning rate of the warm-up and cosine schedule."""
    weight_decay: Weight = 1e-4
    """Decoupled for adamw, L2 for the others."""
    warmup_fraction: Fraction = 0.1
    """Share of the steps spent warming up."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """What follows the warm-up."""
    precision: Precision = "auto"
    """auto: bfloat16 autocast where the hardware has it, float32 elsewhere."""
    seed: int = 0
    """Seed of this stage's weights, order, crops and augmentation."""


class AugmentConfig(Section):
    mixup_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.4
    """Largest share of another clip mixed in (log-mix-exp); 0 is off."""
    mixup_bank: Annotated[int, Field(ge=0)] = 0
    """Past clips kept as mixing partners; 0 mixes within the batch."""
    canvas_time: Annotated[float, Field(ge=1)] = 1.5
    """Virtual canvas of the random resize crop, in clip lengths."""
    frequency_scale: Range = (0.6, 1.5)
    """Range of the crop's height, in clip heights."""
    time_scale: Range = (0.6, 1.5)
    """Range of the crop's width, in clip lengths."""


NO_AUGMENT = AugmentConfig(
    mixup_ratio=0.0, canvas_time=1.0, frequency_scale=(1.0, 1.0), time_scale=(1.0, 1.0)
)


def objective_names() -> tuple[str, ...]:
    """The files of `objectives/` that define an objective: a fourth is one new file."""
    folder = Path(__file__).parent / "objectives"
    private = {"__init__", "protocol", "gather"}
    return tuple(sorted(p.stem for p in folder.glob("*.py") if p.stem not in private))


class PretrainConfig(Training):
    objective: str = "nt_xent"
    """The pre-training objective: decar_v2, barlow_twins or nt_xent."""
    epochs: Count = 4
    batch_size: Annotated[int, Field(ge=2)] = 64
    learning_rate: Positive = 1e-3
    augment: AugmentConfig = AugmentConfig()
    projector_hidden: Count = 2048
    """Hidden width of the projector."""
    projector_dim: Count = 512
    """Output width of the projector."""
    temperature: Positive = 0.2
    """Temperature of nt_xent and decar_v2."""
    num_prototypes: Annotated[int, Field(ge=2)] = 1024
    """Clusters of decar_v2."""
    kmeans_iterations: Count = 10
    """Spherical k-means iterations per epoch of decar_v2."""
    redundancy_weight: Weight = 0.005
    """Off-diagonal weight (lambda) of barlow_twins."""

    @field_validator("objective")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in objective_names():
            raise ValueError(f"is one of {', '.join(objective_names())}")
        return name


class EmbedConfig(Section):
    layer: Layer = "last"
    """Which layer of the teacher is embedded."""
    num_crops: Count = 1
    """Evenly spaced windows averaged per clip (clips that fit one window use one)."""
    batch_size: Count = 256
    """Clips embedded at once."""
    precision: Precision = "auto"
    """As in training."""


class ClusterConfig(Section):
    num_clusters: Annotated[int, Field(ge=2)] | Literal["classes"] = 64
    """k; "classes" is the number of target classes."""
    num_components: Annotated[int, Field(ge=0)] = 64
    """PCA components before k-means; 0 keeps all."""
    whiten: bool = True
    """Scale the components to unit variance."""
    normalize: bool = True
    """Scale every row to unit length."""
    num_iterations: Count = 20
    """k-means iterations."""
    num_init: Count = 4
    """Restarts; the lowest inertia is kept."""
    backend: Literal["auto", "cuml", "torch", "sklearn"] = "auto"
    """auto: cuml where there is a GPU with it, torch elsewhere."""
    max_points_per_centroid: Count = 1024
    """Bound on the sample that k-means is fitted on."""
    seed: int = 0
    """Seed of the sample and of the initial centroids."""


class DistillConfig(Training):
    """A student: `distill` is the last one, which is fine-tuned; `bootstrap` those before it."""

    epochs: Count = 8
    batch_size: Annotated[int, Field(ge=2)] = 32
    learning_rate: Positive = 1e-3
    augment: AugmentConfig = NO_AUGMENT
    """Augmentation of the student's input; by default crops alone."""
    shallow_weight: Weight = 0.1
    """Weight of the shallow heads' cross-entropy."""
    kl_weight: Weight = 0.01
    """Weight of the KL divergence from the deep to the shallow heads."""
    cosine_weight: Weight = 0.003
    """Weight of the cosine distance between the shallow and deep logits."""
    temperature: Positive = 3.0
    """Temperature of the KL divergence (T)."""
    scale_kl: bool = True
    """Multiply the KL by T squared, so that its gradient keeps its size as T changes."""
    detach_teacher: bool = True
    """Keep the deep head from moving towards the shallow ones; false is as released."""
    head_width: Annotated[int, Field(ge=0)] = 256
    """Hidden width of the shallow heads; 0 is as wide as k, as published."""


class FinetuneConfig(Training):
    mode: Literal["linear", "full", "linear_then_full"] = "linear_then_full"
    """What is trained: the head, everything, or one after the other; `scratch` is always full."""
    labels_per_class: Annotated[int, Field(ge=1)] | None = None
    """Labelled clips drawn per class; none is all of them."""
    label_fraction: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of every class's labelled clips that is drawn; an alternative to labels_per_class."""
    num_repeats: Count = 1
    """Draws of the labels, the same for all arms, inside one fit per arm."""
    epochs: Count = 100
    """Passes over the drawn clips that train the head alone."""
    encoder_epochs: Count = 40
    """Passes over the drawn clips that train the encoder as well."""
    encoder_max_steps: Count = 1000
    """Fewer passes where they would take more steps than this, as with many labels."""
    standardize: bool = True
    """Train the head on embeddings of zero mean and unit variance over the drawn clips."""
    power: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Exponent of the signed power normalisation of the embedding before the head; 1 is off."""
    batch_size: Annotated[int, Field(ge=2)] = 32
    optimizer: Optimizer = "adam"
    learning_rate: Positive = 1e-2
    """Peak learning rate while the head alone is trained."""
    weight_decay: Weight = 0.1
    """While the head alone is trained: a strong L2, for many features and few labels."""
    encoder_learning_rate: Positive = 1e-3
    """Peak learning rate while the encoder is trained with the head."""
    encoder_weight_decay: Weight = 1e-4
    """Weight decay, likewise."""
    num_crops: Count = 1
    """Windows averaged per clip, as in embed.num_crops."""
    use_validation: bool = False
    """Keep the best epoch on the labelled validation clips, which then count as labels."""


class EvaluateConfig(Section):
    split: Literal["test", "valid"] = "test"
    """Which held-out clips are scored; valid is for choosing, test for reporting once."""
    batch_size: Count = 256
    """Clips scored at once."""


class Config(Section):
    """All that a pipeline's numbers depend on."""

    data: DataConfig = DataConfig()
    audio: AudioConfig = AudioConfig()
    ingest: IngestConfig = IngestConfig()
    encoder: EncoderConfig = EncoderConfig()
    pretrain: PretrainConfig = PretrainConfig()
    embed: EmbedConfig = EmbedConfig()
    cluster: ClusterConfig = ClusterConfig()
    bootstrap: DistillConfig = DistillConfig()
    distill: DistillConfig = DistillConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    rounds: Annotated[int, Field(ge=1, le=10)] = 2
    """Times that pseudo-labels are made and learned; every further round embeds the student of the
    one before (trained as `bootstrap` says) in place of the teacher."""
    clusterings: Annotated[int, Field(ge=1, le=10)] = 1
    """Clusterings in parallel, of one k and several seeds; a student has heads for each."""
    arms: tuple[Arm, ...] = ("scratch", "teacher", "clusterfit", "unfused")
    """The rivals that a run scores on the same labels."""

    @model_validator(mode="after")
    def _coherent(self) -> Config:
        if self.audio.f_max > self.audio.sample_rate / 2 or self.audio.f_min >= self.audio.f_max:
            raise ValueError(
                f"audio.f_min={self.audio.f_min:g} and audio.f_max={self.audio.f_max:g} must"
                f" satisfy f_min < f_max <= half of audio.sample_rate={self.audio.sample_rate}"
            )
        if self.ingest.max_seconds * self.audio.sample_rate >= MAX_SAMPLES:
            raise ValueError(
                f"a clip of ingest.max_seconds={self.ingest.max_seconds:g} would be 2 GiB at"
                f" audio.sample_rate={self.audio.sample_rate}, and shards hold less: set"
                f" ingest.max_seconds below {MAX_SAMPLES // self.audio.sample_rate}"
            )
        if self.finetune.labels_per_class and self.finetune.label_fraction:
            raise ValueError(
                "finetune.labels_per_class and finetune.label_fraction are alternatives: set one"
            )
        if not self.arms or len(set(self.arms)) < len(self.arms):
            raise ValueError("arms names each of its arms once, and at least one")
        return self


class RunOptions(BaseModel):
    """Where and how a run happens; never part of a result's identity."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    store: str = "store"
    """Folder or URI (s3://, gs://) of the artifacts."""
    tracking_uri: str | None = None
    """MLflow; by default MLFLOW_TRACKING_URI, else sqlite:///mlflow.db."""
    experiment: str = "unfused"
    """MLflow experiment."""
    num_workers: Annotated[int, Field(ge=1)] = 1
    """Ray Train workers: they train, embed and score."""
    gpus_per_worker: Annotated[float, Field(ge=0)] | None = None
    """GPUs of one worker, or a share of one; by default one where the cluster has any."""
    concurrency: Annotated[int, Field(ge=1)] = 1
    """Pipelines that share the cluster at a time (the trials of a search)."""

    @model_validator(mode="after")
    def _whole_or_alone(self) -> RunOptions:
        share = self.gpus_per_worker or 0
        if share > 1 and share % 1:
            raise ValueError("--gpus-per-worker is a whole number, or a share of one GPU below 1")
        if 0 < share < 1 and self.num_workers > 1:
            raise ValueError("workers that train together cannot share a GPU: --gpus-per-worker 1")
        return self


def run_options(**values: Any) -> RunOptions:
    """Options from the command line.

    Raises:
        ConfigError: a value out of range, or two that exclude each other.
    """
    try:
        return RunOptions(**values)
    except ValidationError as error:
        raise ConfigError(_sentence(error)) from None


FAITHFUL: dict[str, Any] = {
    "rounds": 1,
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
    "encoder.embedding_dim": 2048,
    "encoder.dropout": 0.3,
    "embed.layer": "last",
    "embed.num_crops": 1,
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
    "encoder.embedding_dim": 256,
    "pretrain.epochs": 2,
    "pretrain.batch_size": 32,
    "cluster.num_clusters": 32,
    "distill.epochs": 4,
    "distill.batch_size": 32,
    "finetune.labels_per_class": 5,
    "finetune.num_repeats": 3,
    "finetune.encoder_epochs": 8,
}
"""Small and quick: all stages on the embedded corpus on a laptop."""

PRESETS: dict[str, dict[str, Any]] = {"recommended": {}, "faithful": FAITHFUL, "demo": DEMO}


def preset(name: str) -> Config:
    """The configuration that `name` stands for; `recommended` is the defaults."""
    if name not in PRESETS:
        raise ConfigError(f"There is no preset {name!r}; choose one of {', '.join(PRESETS)}.")
    return override(Config(), PRESETS[name])


def flatten(config: BaseModel, prefix: str = "") -> dict[str, Any]:
    """Every knob under its dotted name, in order of declaration."""
    flat: dict[str, Any] = {}
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def override(config: Config, changes: Mapping[str, Any]) -> Config:
    """`config` with dotted keys changed: the one door for every change.

    Values are coerced to the declared type ("64", 64 and NumPy's 64 are one value).

    Raises:
        ConfigError: an unknown key (the nearest one is named) or a value out of type or range.
    """
    tree = config.model_dump()
    known = flatten(config)
    for key, value in changes.items():
        if key not in known:
            raise ConfigError(_unknown(key, known))
        branch = tree
        *parents, leaf = key.split(".")
        for parent in parents:
            branch = branch[parent]
        branch[leaf] = _plain(value)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(_sentence(error)) from None


def parse_overrides(arguments: list[str]) -> dict[str, str]:
    """`["cluster.num_clusters=64"]` -> `{"cluster.num_clusters": "64"}`."""
    changes: dict[str, str] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or not key:
            raise ConfigError(
                f"{argument!r} is not section.key=value, as in distill.temperature=2."
            )
        if key in changes:
            raise ConfigError(f"{key} is set twice; keep one of the two.")
        changes[key] = value
    return changes


def shown(value: Any) -> str:
    """A value as the command line takes it."""
    if isinstance(value, list | tuple):
        return f"[{','.join(shown(item) for item in value)}]"
    return "none" if value is None else str(value)


def _plain(value: Any) -> Any:
    """A command line's or NumPy's spelling of a value as plain Python."""
    if hasattr(value, "item"):
        return value.item()
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text.lower() in {"none", "null"}:
        return None
    if text.startswith("[") and text.endswith("]"):
        return [_plain(part) for part in text[1:-1].split(",") if part.strip()]
    return text.strip("'\"")


def _unknown(key: str, known: Mapping[str, Any]) -> str:
    leaves = {name.rpartition(".")[2]: name for name in known}
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    if not near:
        leaf = difflib.get_close_matches(key.rpartition(".")[2], leaves, n=1)
        near = [leaves[name] for name in leaf]
    hint = f"did you mean {near[0]}?" if near else "`unfused config` lists them all."
    return f"There is no setting {key!r}; {hint}"


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if isinstance(part, str) and part.islower())
    what = first["msg"].removeprefix("Value error, ")
    if not where:
        return f"{what}."
    given = json.dumps(first["input"], default=str)
    return f"{where}={given} is not possible: {what[0].lower()}{what[1:]}."
