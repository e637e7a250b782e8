"""What settings must be to one another, each of them in its own range already.

The rule of this file: a pair that cannot work is refused here, before anything is read, with the
names of both and what to change; what depends on the clips as well is the stages' to say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unfused.arms import ARMS

if TYPE_CHECKING:
    from unfused.config.choices import EncoderConfig
    from unfused.config.sections import AudioConfig, Config

MAX_SAMPLES = 2**30 - 2**10
"""Of one clip: a page in Parquet is smaller than 2 GiB."""


def check(config: Config) -> None:
    """Refuse settings that exclude each other.

    Raises:
        ValueError: of the first pair.
    """
    _check_bands(config.audio)
    _check_length(config)
    if config.finetune.labels_per_class and config.finetune.label_fraction:
        raise ValueError(
            "finetune.labels_per_class and finetune.label_fraction are alternatives: set one"
        )
    _check_arms(config.arms)
    if config.pretrain.objective.hears_features and not config.teachers.also:
        raise ValueError(
            f"pretrain.objective={config.pretrain.objective.kind} learns the features in"
            " teachers.also, which are none: name some, or another objective"
        )
    for encoder in (config.teacher, config.student):
        _check_input(config.audio, encoder)
    for encoder in (config.teacher, config.student)[: config.rounds]:
        _check_layer(config.embed.layer, encoder)


def _check_bands(audio: AudioConfig) -> None:
    """There are mel bands, and frequencies and samples for all of them."""
    if audio.f_max > audio.sample_rate / 2 or audio.f_min >= audio.f_max:
        raise ValueError(
            f"audio.f_min={audio.f_min:g} and audio.f_max={audio.f_max:g} must"
            f" satisfy f_min < f_max <= half of audio.sample_rate={audio.sample_rate}"
        )
    frequencies = int((audio.f_max - audio.f_min) * audio.n_fft / audio.sample_rate)
    if frequencies < audio.n_mels:
        raise ValueError(
            f"audio.n_fft={audio.n_fft} at audio.sample_rate={audio.sample_rate} tells"
            f" {frequencies} frequencies apart between audio.f_min={audio.f_min:g} and"
            f" audio.f_max={audio.f_max:g}, and audio.n_mels={audio.n_mels} bands need as many:"
            " raise n_fft, or lower n_mels"
        )
    if audio.hop_length > audio.n_fft:
        raise ValueError(
            f"audio.hop_length={audio.hop_length} leaves out samples between frames of"
            f" audio.n_fft={audio.n_fft}: set hop_length to that or less"
        )


def _check_length(config: Config) -> None:
    """The longest clip fits a page of a shard."""
    if config.ingest.max_seconds * config.audio.sample_rate >= MAX_SAMPLES:
        raise ValueError(
            f"a clip of ingest.max_seconds={config.ingest.max_seconds:g} would be 2 GiB at"
            f" audio.sample_rate={config.audio.sample_rate}, and shards hold less: set"
            f" ingest.max_seconds below {MAX_SAMPLES // config.audio.sample_rate}"
        )


def _check_arms(arms: tuple[str, ...]) -> None:
    for arm in arms:
        if arm not in ARMS:
            raise ValueError(f"arms has no arm {arm!r}; choose from {', '.join(ARMS)}")
    if not arms or len(set(arms)) < len(arms):
        raise ValueError("arms names each of its arms once, and at least one")


def _check_input(audio: AudioConfig, encoder: EncoderConfig) -> None:
    """A window of log-mel suits the encoder."""
    frames = 1 + audio.crop_samples // audio.hop_length
    if audio.n_mels % encoder.band_multiple:
        raise ValueError(
            f"audio.n_mels={audio.n_mels} is no multiple of {encoder.band_multiple}, which"
            f" the encoder {encoder.kind} needs"
        )
    if frames < encoder.min_frames:
        raise ValueError(
            f"audio.crop_seconds={audio.crop_seconds} gives {frames} frames and the"
            f" encoder {encoder.kind} needs {encoder.min_frames}; raise it, or lower"
            " audio.hop_length"
        )


def _check_layer(layer: str, encoder: EncoderConfig) -> None:
    """The layer that is embedded is one of the encoder's."""
    if layer not in encoder.layers:
        raise ValueError(
            f"embed.layer={layer!r} is no layer of {encoder.kind}; choose one of"
            f" {', '.join(encoder.layers)}"
        )
