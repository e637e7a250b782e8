"""Run the published data sets that lie below a folder, as the method's authors evaluate encoders.

    python benchmarks/lape.py DATA_DIR                     all that are in DATA_DIR/NAME/ (days)
    python benchmarks/lape.py DATA_DIR --only esc50 --only nsynth
    python benchmarks/lape.py DATA_DIR --dry-run           say what would run
    python benchmarks/lape.py DATA_DIR distill.epochs=5    settings, as `unfused run` has them

Each set is learned twice by the preset `faithful`, with a linear head on frozen encoders: of all
labels, and of five a class (five draws). Encoders are pre-trained on the set's own training clips.
`unfused datasets` lists the sets. What is built already is not built again.

The protocol is LAPE's (the authors' toolkit), but for what it cannot be compared by: the best epoch
is never chosen on test clips; LibriSpeech has 251 classes, its speakers; UrbanSound8K is scored on
each of its ten folds, not on the tenth alone.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tables

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "platform"))

import unfused  # noqa: E402
from unfused.config import ConfigError, parse_overrides  # noqa: E402
from unfused.corpora import known  # noqa: E402

ARMS = ("teacher", "unfused")
LINEAR = {
    "finetune.mode": "linear",
    "arms": f"[{','.join(ARMS)}]",
    # The splits are as they were published, copies and all.
    "data.allow_overlap": "true",
}
SETTINGS = {
    "linear, all labels": LINEAR,
    "linear, 5 labels a class": {
        **LINEAR,
        "finetune.labels_per_class": "5",
        "finetune.num_repeats": "5",
    },
}
PUBLISHED = {
    "BYOL-A": {
        "speech_commands_v2": 92.2,
        "speech_commands_v2_12": 91.0,
        "voxceleb1": 40.1,
        "voxforge": 90.2,
        "nsynth": 74.1,
        "urbansound8k": 79.1,
    },
    "BYOL-A v2": {
        "speech_commands_v2": 93.1,
        "voxceleb1": 57.6,
        "voxforge": 93.3,
        "nsynth": 73.1,
        "urbansound8k": 79.7,
    },
}
"""Accuracy in per cent of a linear probe on all labels, by data set."""
SOURCES = (
    "BYOL-A: the same encoder pre-trained on the whole of AudioSet (Niizumi et al.,"
    " arXiv:2103.06695), linear probe, all labels, per cent.",
    "BYOL-A v2: likewise, its later encoder (Niizumi et al., arXiv:2204.07402), as EVAR scores it.",
    "Here each encoder saw the set's own training clips alone; UnFuSeD's own figures could not be"
    " obtained.",
)


@dataclass(frozen=True)
class Evaluation:
    """A known data set, where it lies, and which labels are used."""

    known: known.KnownSet
    place: Path
    labels: str
    overrides: dict[str, str]
    preset: str

    @property
    def task(self) -> str:
        return f"{self.known.name}:{self.place}"

    @property
    def settings(self) -> dict[str, str]:
        return SETTINGS[self.labels] | self.overrides

    @property
    def command(self) -> str:
        folds = ["--folds"] if self.known.num_folds else []
        changes = [f"{name}={value}" for name, value in self.settings.items()]
        words = ["--task", self.task, "--preset", self.preset, *folds, *changes]
        return shlex.join(["unfused", "run", *words])

    def run(self, options: dict[str, Any]) -> list[str]:
        """The cells of its row: what each arm scores, or why nothing does."""
        folds = self.known.num_folds > 0
        asked = {"preset": self.preset, "folds": folds, "settings": self.settings}
        try:
            arms = unfused.run(self.task, **asked, **options).arms
        except ConfigError as error:
            print(f"{self.known.name} is left out: {error}", file=sys.stderr, flush=True)
            return ["refused"] * len(ARMS)
        return [_cell(arms.loc[arm]) if arm in arms.index else "-" for arm in ARMS]

    @property
    def published(self) -> list[str]:
        """What was published of a linear probe of all labels."""
        if self.labels != next(iter(SETTINGS)):
            return ["-"] * len(PUBLISHED)
        return [str(scores.get(self.known.name, "-")) for scores in PUBLISHED.values()]


def _cell(scores: Any) -> str:
    """An accuracy in per cent, and its deviation where there were several draws or folds."""
    mean, sd = 100 * scores["accuracy"], scores["sd"]
    return f"{mean:.1f}" if sd is None or sd != sd else f"{mean:.1f} ± {100 * sd:.1f}"


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


def evaluations(
    folder: Path, only: Sequence[str], overrides: dict[str, str], preset: str
) -> Iterator[Evaluation]:
    """What is to be run: the sets in folders of their names, `ESC-50` as well as `esc50`.

    Raises:
        ConfigError: one of `only` is no known set, or is not there.
    """
    there = {_plain(place.name): place for place in sorted(folder.iterdir()) if place.is_dir()}
    places = {
        one.name: there.get(_plain(one.name), there.get(_plain(one.home)))
        for one in known.SETS.values()
    }
    for name in only:
        if name not in places:
            raise ConfigError(f"--only {name}: known are {', '.join(places)}.")
        if places[name] is None:
            raise ConfigError(
                f"--only {name}: there is no folder {folder / name}; unpack it there."
            )
    for name, place in places.items():
        if place is not None and name in (only or places):
            for labels in SETTINGS:
                yield Evaluation(known.SETS[name], place, labels, overrides, preset)


def measure(asked: Sequence[Evaluation], options: dict[str, Any]) -> str:
    """Run all, and put them beside what was published."""
    header = ["data set", "labels", *ARMS, *PUBLISHED]
    rows = [[one.known.name, one.labels, *one.run(options), *one.published] for one in asked]
    return "\n".join([tables.markdown(header, rows), "", *SOURCES])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="in which each set lies in a folder of its name")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="again for more"
    )
    parser.add_argument("--preset", default="faithful", help="whose settings; see unfused run")
    parser.add_argument("--store", default="store", help="of the artifacts")
    parser.add_argument("--dry-run", action="store_true", help="list the commands, run nothing")
    given = parser.parse_intermixed_args()
    if not given.folder.is_dir():
        parser.error(f"there is no folder {given.folder}")
    try:
        changes = parse_overrides(given.overrides)
        asked = list(evaluations(given.folder, given.only, changes, given.preset))
    except ConfigError as error:
        parser.error(str(error))
    if not asked:
        parser.error(f"{given.folder} has no folder called as a known set: {', '.join(known.SETS)}")
    if given.dry_run:
        print("\n".join(one.command for one in asked))
    else:
        print(measure(asked, {"store": given.store, "experiment": "lape"}))


if __name__ == "__main__":
    main()
