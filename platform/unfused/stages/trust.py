"""Trust: what every teacher's embeddings say of the clips, and how right that is where untold.

For every draw of the labels: a linear probe on each teacher and the labels spread over neighbours,
both cross-validated over the draw's labelled clips and nothing else; the weights of these voices in
a common judgement; and what that judgement says of every training clip.

Axes: N training clips, M that are joined, n labelled clips of a draw, B clips, D embedding, C
classes, F folds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from safetensors.numpy import save

from unfused import probing
from unfused.config import DrawConfig, TeachersConfig
from unfused.data import LabelFacts, all_draws, label_ids, read_embeddings
from unfused.events import Event
from unfused.probing import Folds, Neighbours
from unfused.probing.facts import (
    NEIGHBOURS,
    DrawTrust,
    TrustFacts,
    folds_file,
    labels_file,
    neighbours_file,
    probes_file,
)
from unfused.stages.access import Workers
from unfused.stages.contract import Build, Built, Stage
from unfused.stages.finetune import check
from unfused.store import Artifact, Folder, npy

PARTS = 16
"""In which all clips hear what their neighbours say, one after the other."""
EMBEDDINGS = "embeddings/"
"""What the names of the inputs that are embeddings begin with; a teacher's name follows."""


def run(builds: Sequence[Build], workers: Workers) -> list[Built]:
    calls = {
        build.node: (
            {
                name.removeprefix(EMBEDDINGS): artifact.folder
                for name, artifact in build.inputs.items()
                if name.startswith(EMBEDDINGS)
            },
            build.inputs["labels"],
            build.config["teachers"],
            build.config["draws"],
            build.out,
        )
        for build in builds
    }
    return workers.call(measure, calls)


def measure(
    embeddings: Mapping[str, Folder],
    labels: Artifact[LabelFacts],
    config: TeachersConfig,
    draw: DrawConfig,
    out: Folder,
    emit: Callable[[Event], None],
) -> Built:
    """The whole stage on one worker."""
    ids = label_ids(labels)
    chosen = all_draws(ids, draw)
    heard = {
        name: _Teacher(folder, chosen, len(ids), config) for name, folder in embeddings.items()
    }
    for name, teacher in heard.items():
        if teacher.neighbours:
            out.write(neighbours_file(name), save(teacher.neighbours.arrays()))
    draws = []
    for repeat in range(len(chosen)):
        one = _Draw(repeat, chosen[repeat], ids, config)
        one.listen(heard, len(labels.facts.classes))
        one.save(out, len(ids))
        draws.append(one.facts())
    facts = TrustFacts(classes=labels.facts.classes, num_labels=len(chosen[0]), draws=draws)
    return Built(facts)


class _Teacher:
    """What a teacher embeds of the clips that are needed again and again.

    Args:
        folder: of its embeddings, of which one file at a time is in memory.
        chosen: the labelled clips of every draw.
        total: N.
        config: how many neighbours a clip has.
    """

    def __init__(
        self, folder: Folder, chosen: Sequence[np.ndarray], total: int, config: TeachersConfig
    ) -> None:
        self.folder, self.total = folder, total
        self._labelled = np.unique(np.concatenate(chosen))
        self._few = self._rows(self._labelled)
        self.neighbours: Neighbours | None = None
        if config.neighbours:
            self._join(config.neighbours)

    def few(self, clips: np.ndarray) -> np.ndarray:
        """The embeddings (n, D) of labelled clips."""
        return self._few[np.searchsorted(self._labelled, clips)]

    def tell(self, clips: np.ndarray, ids: np.ndarray, num_classes: int) -> np.ndarray:
        """One-hot labels (M, C) of the joined clips among these (n,), zeros of all others."""
        told = np.zeros((len(self.joined), num_classes), np.float32)
        place = np.searchsorted(self.joined, clips).clip(max=len(self.joined) - 1)
        known = self.joined[place] == clips
        told[place[known], ids[known]] = 1
        return told

    def _join(self, count: int) -> None:
        """Join clips to their neighbours: of very many clips a sample, and labelled ones first."""
        first = np.random.default_rng(0).permutation(self._labelled)
        others = np.setdiff1d(np.arange(self.total), first, assume_unique=True)
        order = np.concatenate([first, np.random.default_rng(0).permutation(others)])
        self.joined = np.sort(order[: probing.MAX_CLIPS])
        made = Neighbours.of(self._rows(self.joined), count)
        found = [(clip, made.near(values)) for clip, values in read_embeddings(self.folder)]
        order = np.argsort(np.concatenate([clip for clip, _ in found]))
        places = np.concatenate([near.places for _, near in found])
        weights = np.concatenate([near.weights for _, near in found])
        self.neighbours, self.near = made, probing.Near(places, weights)[order]

    def _rows(self, clips: np.ndarray) -> np.ndarray:
        """The embeddings (b, D) of clips (b,), ascending."""
        return np.concatenate(
            [values[np.isin(clip, clips)] for clip, values in read_embeddings(self.folder)]
        )


class _Probes:
    """One voice: linear probes on a teacher's embeddings."""

    def __init__(self, name: str, teacher: _Teacher, draw: _Draw, num_classes: int) -> None:
        self.name, self.teacher = name, teacher
        few = teacher.few(draw.rows)
        self._probed = probing.fit(few, draw.ids, num_classes, draw.folds)
        self.held_out, self.accuracy = self._probed.held_out, self._probed.accuracy

    def say(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Clips (B,) and what they are taken for (1 + F, B, C), some after others."""
        for clip, values in read_embeddings(self.teacher.folder):
            yield clip, self._probed.say(values)

    def arrays(self) -> dict[str, np.ndarray]:
        probe = self._probed.probe.arrays()
        return {f"{self.name}.{key}": array for key, array in probe.items()}


class _Spread:
    """Another: the labels spread over the neighbours that the embeddings give a clip."""

    def __init__(self, name: str, teacher: _Teacher, draw: _Draw, num_classes: int) -> None:
        assert teacher.neighbours is not None
        self.name, self.teacher = name, teacher
        said = []
        self.held_out = self.accuracy = None
        for left in draw.left_out:
            told = teacher.tell(draw.rows[~left], draw.ids[~left], num_classes)
            found = teacher.neighbours.spread(told).astype(np.float16)
            if len(said) <= len(draw.numbers):
                said.append(found)
            if left.any():
                heard = teacher.near[draw.rows].average(found) * left[:, None]
                self.held_out = heard if self.held_out is None else self.held_out + heard
        self._said = np.stack(said)
        if self.held_out is not None:
            self.held_out /= len(draw.folds.tests)
            self.accuracy = probing.share_right(self.held_out, draw.ids)

    def say(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """As `_Probes.say`."""
        for clip in np.array_split(np.arange(self.teacher.total), PARTS):
            yield clip, self.teacher.near[clip].average(self._said)

    def arrays(self) -> dict[str, np.ndarray]:
        return {f"{self.name}.said": self._said[0]}


class _Draw:
    """The voices of one draw.

    Args:
        repeat: its number.
        rows: (n,) of its labelled clips, ascending.
        ids: (N,) classes of all clips, of which those of `rows` are looked at.
        config: how they are cross-validated and weighted.
    """

    def __init__(
        self, repeat: int, rows: np.ndarray, ids: np.ndarray, config: TeachersConfig
    ) -> None:
        self.repeat, self.rows, self.ids, self.config = repeat, rows, ids[rows], config
        self.folds = Folds.of(self.ids, config.num_folds, config.num_repeats, seed=repeat)
        self.voices: list[_Probes | _Spread] = []
        self.weights = np.zeros(0)

    @property
    def numbers(self) -> range:
        """Of the folds of a repetition."""
        return range(0 if self.folds.first is None else self.folds.first.max() + 1)

    @property
    def left_out(self) -> list[np.ndarray]:
        """Which labelled clips (n,) are not told: none, then those of each fold, the folds of the
        first repetition first."""
        folds = [test == number for test in self.folds.tests for number in self.numbers]
        return [np.zeros(len(self.rows), bool), *folds]

    def listen(self, teachers: Mapping[str, _Teacher], num_classes: int) -> None:
        """Hear what every teacher's embeddings say of the labelled clips, and weigh it."""
        for name, teacher in teachers.items():
            self.voices.append(_Probes(name, teacher, self, num_classes))
            if teacher.neighbours:
                self.voices.append(_Spread(name + NEIGHBOURS, teacher, self, num_classes))
        if self.config.weighting == "equal" or self.folds.first is None:
            self.weights = np.full(len(self.voices), 1 / len(self.voices))
        else:
            self.weights = probing.weights([one.held_out for one in self.voices], self.ids)

    def say(self, total: int) -> np.ndarray:
        """What all voices together say of all clips: (1 + F, N, C); see `probing.facts`."""
        scores: np.ndarray | None = None
        for weight, voice in zip(self.weights, self.voices, strict=True):
            if weight:
                for clip, said in voice.say():
                    if scores is None:
                        scores = np.zeros((len(said), total, said.shape[2]), np.float32)
                    scores[:, clip] += weight * probing.opinion(said)
        return probing.softmax(scores)

    @property
    def fold_of(self) -> np.ndarray:
        """The fold (n,) int8 that each labelled clip is left out in; -1 without folds."""
        return np.full(len(self.ids), -1, np.int8) if self.folds.first is None else self.folds.first

    def save(self, out: Folder, total: int) -> None:
        """Write the voices, what they say of all clips, and which clips they were tried on."""
        arrays = {key: array for one in self.voices for key, array in one.arrays().items()}
        out.write(probes_file(self.repeat), save(arrays))
        out.write(labels_file(self.repeat), npy(self.say(total).astype(np.float16)))
        folds = np.full(total, -1, np.int8)
        folds[self.rows] = self.fold_of
        out.write(folds_file(self.repeat), npy(folds))

    def facts(self) -> DrawTrust:
        names, pooled = [one.name for one in self.voices], None
        if self.folds.first is not None:
            held_out = [one.held_out for one in self.voices]
            if self.config.weighting == "auto":
                said = probing.untold(held_out, self.ids, self.folds.first)
            else:
                said = probing.combine(held_out, self.weights)
            pooled = probing.share_right(said, self.ids)
        return DrawTrust(
            accuracy={one.name: one.accuracy for one in self.voices},
            weights=dict(zip(names, np.round(self.weights, 4).tolist(), strict=True)),
            pooled=pooled,
        )


STAGE = Stage(version=4, facts=TrustFacts, access=Workers, run=run, check=check)
