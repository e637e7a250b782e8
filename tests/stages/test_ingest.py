"""What ingest says of durations, and of the window."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from unfused.config import AudioConfig, IngestConfig
from unfused.corpora.clip import Clip
from unfused.stages import Build, Tasks
from unfused.stages.ingest import IngestFacts, run
from unfused.store import Folder

RATE = 16000


@pytest.fixture
def ingest(ray_cluster, tmp_path):
    """`ingest({"train": [seconds, ...]})`: the facts of clips of these durations."""

    def facts(splits: dict[str | None, list[float]], audio: AudioConfig) -> IngestFacts:
        rng, clips = np.random.default_rng(0), []
        for split, durations in splits.items():
            for number, seconds in enumerate(durations):
                path = tmp_path / f"{split}-{number}.wav"
                soundfile.write(path, rng.uniform(-0.5, 0.5, round(seconds * RATE)), RATE)
                clips.append(Clip(str(path), "a" if split else None, split))
        config = {"audio": audio, "ingest": IngestConfig()}
        places = Folder.of(tmp_path / "out"), Folder.of(tmp_path / "checkpoints")
        (built,) = run([Build("ingest", config, {}, *places, clips)], Tasks(ray_cluster))
        assert isinstance(built.facts, IngestFacts)
        return built.facts

    return facts


def test_a_part_says_how_long_its_clips_are_and_at_what_rate_they_were_recorded(ingest):
    audio = AudioConfig(sample_rate=22050)
    assert ingest({"train": [0.4]}, audio).parts["train"].recorded_rate == RATE
    parts = ingest({"train": [4.0, 0.5, 5.0, 3.0, 4.5], "test": [0.4]}, AudioConfig()).parts
    assert parts["train"].recorded_rate == RATE
    assert parts["train"].durations == [0.5, 3.0, 4.0, 4.5, 5.0]
    assert parts["train"].seconds == 17.0
    assert parts["test"].durations == [0.4] * 5


def test_one_window_is_one_part_however_it_was_asked_for_and_always_a_number(ingest):
    train = {"train": [0.5, 0.7]}
    auto, same, other = (
        ingest(train, audio).parts["train"]
        for audio in (AudioConfig(), AudioConfig(crop_seconds=0.95), AudioConfig(crop_seconds=3))
    )
    assert (auto.audio.crop_seconds, other.audio.crop_seconds) == (0.95, 3.0)
    assert auto.digest == same.digest != other.digest
