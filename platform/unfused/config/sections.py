"""Every setting once: name, type, default, range, meaning.

The rule of this file: what changes numbers is here (and is hashed); where a run happens is in
`options` (and is not). What a kind of objective or encoder may be told stands in that kind's own
file.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from unfused.arms import DEFAULT
from unfused.config.choices import Encoder, EncoderConfig, Objective, ObjectiveConfig, default
from unfused.config.coherence import check
from unfused.config.section import (
    Batch,
    Count,
    Fraction,
    OffAt,
    Positive,
    Range,
    Rate,
    Section,
    Seed,
    Temperature,
    Together,
    Weight,
)

Layer = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Precision = Literal["auto", "float32", "bfloat16"]
Optimizer = Literal["adamw", "adam", "sgd", "larc"]
Pooling = Literal["mean", "max", "attention"]
Feature = Literal[
    "statistics", "cepstra", "cepstra:centred", "cepstra:moments", "periodicity", "envelope"
]
Auto = Literal["auto"]
NumCrops = Annotated[int, Field(ge=1, le=1024)] | Auto
Repeats = Annotated[int, Field(ge=1, le=1000)]
Segment = Annotated[float, Field(ge=0.1, le=3600.0)]
Channel = Literal["mean", "left", "right", "loudest"]

AUTO_WINDOW = 0.95
"""Seconds of the window that `audio.crop_seconds=auto` is, however long clips are: longer clips
have more windows, which did better on clips of five seconds than longer ones (docs/decisions.md).
"""


class DataConfig(Section):
    valid_fraction: Annotated[float, Field(gt=0, lt=0.5)] = 0.15
    """Share of the clips held out for validation where a manifest has no such split."""
    test_fraction: Annotated[float, Field(gt=0, lt=0.5)] = 0.15
    """Share of the clips held out for testing where a manifest has no `split` column."""
    split_seed: Seed = 0
    """Seed of that split."""
    allow_overlap: bool = False
    """Accept clips of train or corpus whose bytes are also in valid or test."""


class AudioConfig(Section):
    sample_rate: Annotated[int, Field(ge=4000, le=192000)] = 16000
    """Hz, after resampling."""
    n_fft: Annotated[int, Field(ge=64, le=65536, multiple_of=2)] = 1024
    """Samples in the STFT window, an even number."""
    hop_length: Annotated[int, Field(ge=16, le=65536)] = 160
    """Samples between frames; at most n_fft."""
    n_mels: Annotated[int, Field(ge=8, le=1024)] = 64
    """Mel bands; a multiple of what the encoder needs (8)."""
    f_min: Annotated[float, Field(ge=0)] = 60.0
    """Hz, lower edge of the first band."""
    f_max: Positive = 7800.0
    """Hz, upper edge of the last band; at most half the sample rate."""
    crop_seconds: Annotated[float, Field(ge=0.1, le=60.0)] | Auto = "auto"
    """Length of the window that is learned and scored; shorter clips are zero-padded, longer ones
    have several (embed.num_crops, finetune.num_crops). auto: 0.95."""
    channel: Annotated[Channel, OffAt("mean")] = "mean"
    """Of several channels: their mean (where they cancel each other, the loudest, which is said),
    the first (left), the second (right), or the loudest."""

    @property
    def crop_samples(self) -> int:
        """S."""
        seconds = AUTO_WINDOW if self.crop_seconds == "auto" else self.crop_seconds
        return round(seconds * self.sample_rate)

    def settled(self) -> AudioConfig:
        """The same with a number for auto: what parts and encoders keep."""
        if self.crop_seconds != "auto":
            return self
        return self.model_copy(update={"crop_seconds": AUTO_WINDOW})


class IngestConfig(Section):
    max_seconds: Positive = 3600.0
    """Clips longer than this are quarantined."""
    max_bad_fraction: Fraction = 0.05
    """A run fails if a larger share of the clips cannot be used."""
    clips_per_shard: Together = 512
    """Clips in one Parquet shard."""
    shuffle_seed: Seed = 0
    """Seed of the one shuffle that fixes the order of clips in the shards."""
    segment_seconds: Annotated[Segment | Auto | Literal["off"], OffAt("auto")] = "auto"
    """Recordings are cut into segments of so many seconds while they are decoded, each of them a
    clip. auto: those of a corpus that are longer than 30 s, into segments of 10 s; off: none."""
    segment_overlap: Annotated[float, Field(ge=0, le=0.95), OffAt(0.0)] = 0.0
    """Share of a segment that the next one has too."""
    segment_min_level: Annotated[float | None, Field(ge=-200, le=0), OffAt(None)] = None
    """Segments whose RMS is below so many dB of full scale are left out; none keeps all."""


class Training(Section):
    """The knobs that every learned stage shares."""

    passes: ClassVar[tuple[int, int]] = (1, 0)
    """What auto is: at least so many epochs, and so many that they take at least so many steps."""
    epochs: Count | Auto
    """Passes over the clips; auto: as many as suit their number, few clips many."""
    batch_size: Batch
    """Clips in one optimiser step, over all workers."""
    optimizer: Optimizer = "adamw"
    """adamw, adam, sgd (momentum 0.9), or larc (sgd with layer-wise rate control)."""
    learning_rate: Rate
    """Peak learning rate of the warm-up and cosine schedule."""
    weight_decay: Weight = 1e-4
    """Decoupled for adamw, L2 for the others."""
    warmup_fraction: Fraction = 0.1
    """Share of the steps spent warming up."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """What follows the warm-up."""
    precision: Precision = "auto"
    """auto: bfloat16 autocast where the hardware has it, float32 elsewhere."""
    seed: Seed = 0
    """Seed of this stage's weights, order, crops and augmentation."""

    def settled(self, num_clips: int) -> Self:
        """The same with a number of epochs, for so many clips."""
        if self.epochs != "auto":
            return self
        epochs, steps = self.passes
        of_one = num_steps(num_clips, self.batch_size)
        return self.model_copy(update={"epochs": max(epochs, math.ceil(steps / of_one))})


def num_steps(num_clips: int, batch_size: int) -> int:
    """Steps in an epoch: batches of `batch_size` clips as nearly as batches of one size can be."""
    return max(1, round(num_clips / batch_size))


class AugmentConfig(Section):
    mixup_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.4
    """Largest share of another clip mixed in (log-mix-exp); 0 is off."""
    mixup_bank: Annotated[int, Field(ge=0, le=65536)] = 0
    """Past clips kept as mixing partners; 0 mixes within the batch."""
    canvas_time: Annotated[float, Field(ge=1, le=10)] = 1.5
    """Virtual canvas of the random resize crop, in clip lengths."""
    frequency_scale: Range = (0.6, 1.5)
    """Range of the crop's height, in clip heights."""
    time_scale: Range = (0.6, 1.5)
    """Range of the crop's width, in clip lengths."""
    filter_db: Annotated[float, Field(ge=0, le=60)] = 0.0
    """Standard deviation in dB of a random smooth filter's gains along the bands; 0 is off."""

    @field_validator("frequency_scale", "time_scale")
    @classmethod
    def _ascending(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if scale[0] > scale[1]:
            raise ValueError("the first number is the smaller one")
        return scale


NO_AUGMENT = AugmentConfig(
    mixup_ratio=0.0, canvas_time=1.0, frequency_scale=(1.0, 1.0), time_scale=(1.0, 1.0)
)


class PretrainConfig(Training):
    objective: Objective = Field(default_factory=lambda: default(ObjectiveConfig, "features"))
    """The pre-training objective, whose own settings follow."""
    passes: ClassVar[tuple[int, int]] = (4, 300)
    epochs: Count | Auto = "auto"
    """Passes over the clips; auto: 4, and for few clips as many as take 300 steps."""
    batch_size: Batch = 32
    learning_rate: Rate = 1e-3
    augment: AugmentConfig = AugmentConfig()
    """Of the two views of a clip; an objective with one view sees a window as it is."""


class EmbedConfig(Section):
    layer: Layer = "last"
    """Which layer of the teacher is embedded."""
    num_crops: NumCrops = "auto"
    """Evenly spaced windows whose embeddings are averaged per clip, but for those in silence; auto:
    as many as cover it, at most 64. Clips that fit one window use one."""
    batch_size: Together = 256
    """Clips embedded at once."""
    precision: Precision = "auto"
    """As in training."""


class ClusterConfig(Section):
    num_clusters: Annotated[int, Field(ge=2, le=65536)] | Literal["classes"] = 16
    """k; "classes" is the number of target classes."""
    num_components: Annotated[int, Field(ge=0, le=16384)] = 64
    """PCA components before k-means; 0 keeps all."""
    whiten: bool = True
    """Scale the components to unit variance."""
    normalize: bool = True
    """Scale every row to unit length."""
    num_iterations: Annotated[int, Field(ge=1, le=10000)] = 20
    """k-means iterations."""
    num_init: Annotated[int, Field(ge=1, le=1000)] = 4
    """Restarts; the lowest inertia is kept."""
    backend: Literal["auto", "cuml", "torch", "sklearn"] = "auto"
    """auto: cuml where there is a GPU with it, torch elsewhere."""
    max_points_per_centroid: Count = 1024
    """Bound on the sample that k-means is fitted on."""
    seed: Seed = 0
    """Seed of the sample and of the initial centroids."""


class DistillConfig(Training):
    """A student: `distill` is the last one, which is fine-tuned; `bootstrap` those before it."""

    passes: ClassVar[tuple[int, int]] = (6, 450)
    epochs: Count | Auto = "auto"
    """Passes over the clips; auto: 6, and for few clips as many as take 450 steps."""
    batch_size: Batch = 32
    learning_rate: Rate = 1e-3
    augment: AugmentConfig = NO_AUGMENT
    """Augmentation of the student's input; by default crops alone."""
    shallow_weight: Weight = 0.1
    """Weight of the shallow heads' cross-entropy."""
    kl_weight: Weight = 0.01
    """Weight of the KL divergence from the deep to the shallow heads."""
    cosine_weight: Weight = 0.003
    """Weight of the cosine distance between the shallow and deep logits."""
    temperature: Temperature = 3.0
    """Temperature of the KL divergence (T)."""
    scale_kl: bool = True
    """Multiply the KL by T squared, so that its gradient keeps its size as T changes."""
    detach_teacher: bool = True
    """Keep the deep head from moving towards the shallow ones; false is as released."""
    soft_temperature: Annotated[Weight, OffAt(0.0)] = 0.0
    """Temperature of soft pseudo-labels, by squared distances to the centroids; 0 is the nearest
    one alone, as published."""
    feature_weight: Annotated[Weight, OffAt(0.0)] = 0.0
    """Weight of matching what the teachers embed (cosine distance); 0 as published."""
    head_width: Annotated[int, Field(ge=0, le=16384)] = 256
    """Hidden width of the shallow heads; 0 is as wide as k, as published."""


class DrawConfig(Section):
    """Which of the labels an arm may look at: the same for all arms."""

    labels_per_class: Count | None = None
    """Labelled clips drawn per class, all of a class that has fewer; none is all of them."""
    label_fraction: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of every class's labelled clips that is drawn; an alternative to labels_per_class."""
    num_repeats: Repeats = 1
    """Draws of the labels, the same for all arms, inside one fit per arm."""
    seed: Seed = 0
    """Seed of this stage's weights, order, crops and augmentation, and of the draws."""


class ScoringConfig(Section):
    """How an encoder with a head scores clips of any length."""

    num_crops: NumCrops = "auto"
    """Windows scored per clip, as in embed.num_crops."""
    pooling: Pooling = "mean"
    """How the scores of a clip's windows become the clip's: mean, max, or attention, the mean
    weighted by each window's own confidence."""


class FinetuneConfig(Training, DrawConfig, ScoringConfig):
    mode: Literal["linear", "full", "linear_then_full"] = "linear_then_full"
    """What is trained: the head, everything, or one after the other; `scratch` is always full."""
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
    batch_size: Batch = 32
    optimizer: Optimizer = "adam"
    learning_rate: Rate = 1e-2
    """Peak learning rate while the head alone is trained."""
    weight_decay: Weight = 0.1
    """While the head alone is trained: a strong L2, for many features and few labels."""
    encoder_learning_rate: Rate = 1e-3
    """Peak learning rate while the encoder is trained with the head."""
    encoder_weight_decay: Weight = 1e-4
    """Weight decay, likewise."""
    num_folds: Annotated[int, Field(ge=0, le=100)] = 3
    """Parts of the drawn clips that are left out in turn, to tell how right an arm is without any
    other label; 0 is off."""
    use_validation: bool = False
    """Keep the best epoch on the labelled validation clips, which then count as labels."""

    @field_validator("num_folds")
    @classmethod
    def _several(cls, num_folds: int) -> int:
        if num_folds == 1:
            raise ValueError("one part left out leaves none to train on; set 2 or more, or 0")
        return num_folds

    @property
    def draws(self) -> DrawConfig:
        """The part of it that says which labels are looked at."""
        return DrawConfig(**{name: getattr(self, name) for name in DrawConfig.model_fields})

    @property
    def scoring(self) -> ScoringConfig:
        """The part of it that says how clips are scored."""
        return ScoringConfig(num_crops=self.num_crops, pooling=self.pooling)


class TeachersConfig(Section):
    """Which teachers are heard, what is trusted beside them, and how far."""

    heard: Annotated[Literal["all"] | tuple[str, ...], OffAt("all")] = "all"
    """Those of `--teacher` that take part, by name (`own` is the one that is pre-trained): for a
    search that chooses among them."""
    also: tuple[Feature, ...] = (
        "statistics",
        "cepstra",
        "cepstra:centred",
        "cepstra:moments",
        "periodicity",
    )
    """Teachers that nothing has to be trained or brought for."""
    judging: tuple[Feature, ...] = ("envelope",)
    """Features of whole clips, which no window of one tells: they judge like teachers, and no
    encoder learns them."""
    clustered: Literal["all", "encoders"] = "all"
    """Whose embeddings become pseudo-labels: all, or those of encoders alone, as published."""
    neighbours: Annotated[int, Field(ge=0, le=1000)] = 10
    """Clips of the nearest embeddings that a clip is joined to and hands its label on to; 0 leaves
    each teacher its linear probe alone."""
    weighting: Literal["auto", "equal"] = "auto"
    """auto: what is heard of a teacher counts by what it adds on labelled clips that are left out;
    equal: all of it alike."""
    num_folds: Annotated[int, Field(ge=2, le=100)] = 5
    """Parts of the labelled clips that are left out in turn."""
    num_repeats: Repeats = 3
    """Times that they are parted anew."""


class CombineConfig(Section):
    """What a classifier is made of."""

    members: Literal["best", "all"] = "all"
    """The most trusted teacher's linear probe alone, or all voices by their weight."""


SELFTRAIN_AUGMENT = AugmentConfig(
    mixup_ratio=0.0,
    canvas_time=1.25,
    frequency_scale=(1.0, 1.0),
    time_scale=(0.8, 1.25),
    filter_db=3.0,
)


class SelftrainConfig(Training):
    """A student of the labels that the probes give all training clips, one for every draw."""

    start: Literal["student", "fresh"] = "student"
    """What it starts from: the `unfused` student, or random weights."""
    passes: ClassVar[tuple[int, int]] = (3, 225)
    epochs: Count | Auto = "auto"
    """Passes over the clips; auto: 3, and for few clips as many as take 225 steps."""
    batch_size: Batch = 32
    learning_rate: Rate = 1e-3
    label_weight: Weight = 1.0
    """Weight of the cross-entropy against the probes' labels."""
    temperature: Temperature = 0.5
    """Temperature of those labels; below 1 they are sharpened."""
    balance: Fraction = 0.0
    """How far the labels are evened out over the classes; 1 gives every class the same share."""
    mix: Fraction = 0.4
    """Largest share of another clip, and of its label, mixed in (mixup on powers)."""
    feature_weight: Weight = 0.5
    """Weight of matching what the trusted teachers embed (cosine distance)."""
    consistency_weight: Weight = 0.0
    """Weight of FixMatch's loss: the plain clip labels the augmented one (arXiv 2001.07685)."""
    consistency_threshold: Fraction = 0.95
    """Probability from which it does."""
    supervised_fraction: Fraction = 0.25
    """Share of the epochs, the last ones, that see the labelled clips with their labels; before
    that they are left out, so that what is learned can be held against them."""
    augment: AugmentConfig = SELFTRAIN_AUGMENT


class EvaluateConfig(Section):
    split: Literal["test", "valid"] = "test"
    """Which held-out clips are scored; valid is for choosing, test for reporting once."""
    batch_size: Together = 256
    """Clips scored at once."""


def _audio_ntt() -> EncoderConfig:
    return default(EncoderConfig, "audio_ntt")


class Config(Section):
    """All that a pipeline's numbers depend on."""

    data: DataConfig = DataConfig()
    audio: AudioConfig = AudioConfig()
    ingest: IngestConfig = IngestConfig()
    teacher: Encoder = Field(default_factory=_audio_ntt)
    """The encoder that is pre-trained."""
    student: Encoder = Field(default_factory=_audio_ntt)
    """The encoder that learns the pseudo-labels; `scratch` has it as well."""
    pretrain: PretrainConfig = Field(default_factory=PretrainConfig)
    embed: EmbedConfig = EmbedConfig()
    cluster: ClusterConfig = ClusterConfig()
    bootstrap: DistillConfig = DistillConfig()
    distill: DistillConfig = DistillConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    teachers: TeachersConfig = TeachersConfig()
    selftrain: SelftrainConfig = SelftrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    rounds: Annotated[int, Field(ge=1, le=10)] = 1
    """Times that pseudo-labels are made and learned; every further round embeds the student of the
    one before (trained as `bootstrap` says) in place of the teachers."""
    clusterings: Annotated[int, Field(ge=1, le=10)] = 1
    """Clusterings in parallel, of one k and several seeds; a student has heads for each."""
    arms: tuple[str, ...] = DEFAULT
    """The rivals that a run scores on the same labels."""

    @model_validator(mode="after")
    def _coherent(self) -> Config:
        check(self)
        return self
