"""Trust: linear probes on every teacher's embeddings, and how right each is where it was not told.

For every draw of the labels: a probe on each teacher, cross-validated over the draw's labelled
clips and nothing else; the weights of the probes in a common judgement; and what that judgement
says of every training clip.

Axes: N training clips, n labelled clips of a draw, D embedding, C classes, F folds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from unfused import cores, probing, runtime
from unfused.config import DrawConfig, TeachersConfig
from unfused.data import LabelFacts, all_draws, label_ids, read_embeddings
from unfused.probing import Folds, Probed
from unfused.probing.facts import DrawTrust, TrustFacts, folds_file, labels_file, probes_file
from unfused.stages.access import Processes
from unfused.stages.contract import Build, Built, Stage
from unfused.stages.finetune import check_draws
from unfused.store import Artifact, Folder, npy

EMBEDDINGS = "embeddings/"
"""What the names of the inputs that are embeddings begin with; a teacher's name follows."""


def run(builds: Sequence[Build], processes: Processes) -> list[Built]:
    calls = [
        (
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
    ]
    return processes.call(measure, calls)


def measure(
    embeddings: Mapping[str, Folder],
    labels: Artifact[LabelFacts],
    config: TeachersConfig,
    draw: DrawConfig,
    out: Folder,
    relay: runtime.Relay,
) -> Built:
    """The whole stage in one process."""
    cores.prepare_process()
    ids = label_ids(labels)
    chosen = all_draws(ids, draw)
    few = {name: _rows(folder, chosen) for name, folder in embeddings.items()}
    draws = [
        _Draw(repeat, rows, ids[rows], {name: found[repeat] for name, found in few.items()}, config)
        for repeat, rows in enumerate(chosen)
    ]
    for one in draws:
        one.probe(len(labels.facts.classes))
        one.save(out, embeddings, len(ids))
    facts = TrustFacts(
        classes=labels.facts.classes,
        num_labels=len(chosen[0]),
        draws=[one.facts() for one in draws],
    )
    return Built(facts)


def _rows(folder: Folder, chosen: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The embeddings (n, D) of the clips of every draw, a file in memory at a time."""
    union = np.unique(np.concatenate(chosen))
    kept = [values[np.isin(clip, union)] for clip, values in read_embeddings(folder)]
    table = np.concatenate(kept)
    return [table[np.searchsorted(union, rows)] for rows in chosen]


class _Draw:
    """The probes of one draw.

    Args:
        repeat: its number.
        rows: (n,) of its labelled clips, ascending.
        ids: (n,) their classes.
        few: their embeddings (n, D) by every teacher.
        config: how they are cross-validated and weighted.
    """

    def __init__(
        self,
        repeat: int,
        rows: np.ndarray,
        ids: np.ndarray,
        few: Mapping[str, np.ndarray],
        config: TeachersConfig,
    ) -> None:
        self.repeat, self.rows, self.ids = repeat, rows, ids
        self.few, self.config = few, config
        self.folds = Folds.of(ids, config.num_folds, config.num_repeats, seed=repeat)
        self.probed: dict[str, Probed] = {}
        self.weights = np.zeros(0)

    def probe(self, num_classes: int) -> None:
        """Fit and weigh a probe on each teacher."""
        self.probed = {
            name: probing.fit(values, self.ids, num_classes, self.folds)
            for name, values in self.few.items()
        }
        held_out = [one.held_out for one in self.probed.values()]
        if self.config.weighting == "equal" or held_out[0] is None:
            self.weights = np.full(len(held_out), 1 / len(held_out))
        else:
            self.weights = probing.weights(held_out, self.ids)

    def say(self, embeddings: Mapping[str, Folder], total: int) -> np.ndarray:
        """What all probes together say of all clips: (1 + F, N, C); see `probing.facts`.

        Args:
            embeddings: of every teacher.
            total: N.
        """
        scores: np.ndarray | None = None
        for weight, (name, one) in zip(self.weights, self.probed.items(), strict=True):
            probes = (one.probe, *one.by_fold)
            if scores is None:
                scores = np.zeros((len(probes), total, len(one.probe.bias)), np.float32)
            if weight:
                for clip, values in read_embeddings(embeddings[name]):
                    for number, probe in enumerate(probes):
                        said = probing.opinion(probe.probabilities(values))
                        scores[number, clip] += weight * said
        return probing.softmax(scores)

    @property
    def fold_of(self) -> np.ndarray:
        """The fold (n,) int8 that each labelled clip is left out in; -1 without folds."""
        return np.full(len(self.ids), -1, np.int8) if self.folds.first is None else self.folds.first

    def save(self, out: Folder, embeddings: Mapping[str, Folder], total: int) -> None:
        """Write the probes, what they say of all clips, and which clips they were tried on."""
        from safetensors.numpy import save

        arrays = {
            f"{name}.{key}": array
            for name, one in self.probed.items()
            for key, array in one.probe.arrays().items()
        }
        out.write(probes_file(self.repeat), save(arrays))
        out.write(labels_file(self.repeat), npy(self.say(embeddings, total).astype(np.float16)))
        folds = np.full(total, -1, np.int8)
        folds[self.rows] = self.fold_of
        out.write(folds_file(self.repeat), npy(folds))

    def facts(self) -> DrawTrust:
        accuracy = {name: one.accuracy for name, one in self.probed.items()}
        held_out = [one.held_out for one in self.probed.values()]
        pooled = None
        if held_out[0] is not None:
            pooled = float((probing.combine(held_out, self.weights).argmax(1) == self.ids).mean())
        weights = dict(zip(self.probed, np.round(self.weights, 4).tolist(), strict=True))
        return DrawTrust(accuracy=accuracy, weights=weights, pooled=pooled)


STAGE = Stage(version=1, facts=TrustFacts, access=Processes, run=run, check=check_draws)
