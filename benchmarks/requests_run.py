"""Whether what a dry run lets pass also runs to its end: random requests on a tiny corpus.

    python benchmarks/requests_run.py                 60 requests
    python benchmarks/requests_run.py --tries 12 --seed 3

Each has two to eight settings with values that their declarations allow, bounds often among them;
what only costs time is kept small. All share one store and one Ray, so that a request builds what
its settings change. The last line counts those that were tried and those that ended as they should;
the exit status is 1 where any did not.
"""

from __future__ import annotations

import argparse
import io
import shlex
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import soundfile

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "platform"), str(ROOT / "tests")]
from hypothesis import HealthCheck, Phase, given, seed, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

import unfused  # noqa: E402
from drawn_requests import allowed, holders, names  # noqa: E402
from unfused import runtime  # noqa: E402
from unfused.commands.run import show_plan  # noqa: E402
from unfused.config import Config, ConfigError, override, parse_overrides, run_options  # noqa: E402
from unfused.pipeline import Request  # noqa: E402

TINY = (
    "encoder.embedding_dim=16",
    "audio.crop_seconds=0.5",
    "pretrain.epochs=1",
    "pretrain.batch_size=12",
    "pretrain.projector_hidden=16",
    "pretrain.projector_dim=8",
    "cluster.num_clusters=4",
    "cluster.num_components=8",
    "bootstrap.epochs=1",
    "distill.epochs=1",
    "distill.batch_size=12",
    "finetune.labels_per_class=3",
    "finetune.epochs=3",
    "finetune.encoder_epochs=1",
    "finetune.num_folds=2",
    "teachers.also=[statistics,cepstra]",
    "teachers.num_folds=2",
    "teachers.num_repeats=1",
    "selftrain.epochs=1",
)
COSTS = {
    "epochs": 2, "encoder_epochs": 2, "num_repeats": 2, "num_folds": 3, "num_iterations": 5,
    "num_init": 2, "kmeans_iterations": 3, "embedding_dim": 64, "projector_hidden": 64,
    "projector_dim": 64, "head_width": 64, "rounds": 2, "clusterings": 2, "mixup_bank": 64,
    "n_mels": 128, "crop_seconds": 2.0, "num_crops": 8, "learning_rate": 0.05,
    "encoder_learning_rate": 0.05, "weight_decay": 1.0, "encoder_weight_decay": 1.0,
}  # fmt: skip
"""The most of what only takes time, and of what makes training diverge or collapse beyond it, which
a run says and ends."""
BY_SOUND = ("ingest.max_seconds", "ingest.max_bad_fraction", "ingest.segment_min_level")
"""What may leave no clip, and that is known only when all are read."""


def cheap(name: str) -> st.SearchStrategy[str]:
    """Values that a setting may have, those of `COSTS` small."""
    most = COSTS.get(name.rpartition(".")[2])
    if most is None:
        return allowed(name)
    return allowed(name).map(lambda text: text if text.isalpha() else str(min(most, _number(text))))


def _number(text: str) -> float:
    return int(text) if text.isdigit() else float(text)


@st.composite
def changes(draw: st.DrawFn) -> tuple[str, ...]:
    """Two to eight settings, each with what it may be."""
    found: dict[str, str] = {}
    telling = [
        name for name in names()
        if not name.startswith("data.") and "seed" not in name and name not in BY_SOUND
    ]  # fmt: skip
    for name in draw(st.lists(st.sampled_from(telling), min_size=2, max_size=8, unique=True)):
        found |= dict(holders()[name][:1])
        found[name] = draw(cheap(name))
    return tuple(f"{name}={value}" for name, value in found.items())


def drawn(number: int, first: int) -> Iterator[tuple[str, ...]]:
    """Different ones, the same for the same seed."""
    found: dict[tuple[str, ...], tuple[str, ...]] = {}

    @seed(first)
    @settings(
        max_examples=number, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(changes())
    def draw(one: tuple[str, ...]) -> None:
        # One request of each set of settings: neighbours are much alike.
        found.setdefault(tuple(sorted(text.partition("=")[0] for text in one)), one)

    draw()
    yield from found.values()


def write_task(root: Path) -> Path:
    """Three classes of tones, 17 clips each of half a second to a second."""
    rng = np.random.default_rng(7)
    for label, hertz in (("low", 200), ("mid", 700), ("high", 2500)):
        for split, count in (("train", 10), ("valid", 3), ("test", 4)):
            folder = root / split / label
            folder.mkdir(parents=True)
            for i in range(count):
                at = np.arange(int(rng.uniform(0.5, 1.0) * 16000)) / 16000
                wave = 0.3 * np.sin(2 * np.pi * hertz * rng.uniform(0.8, 1.25) * at)
                noise = 0.01 * rng.standard_normal(len(at))
                soundfile.write(folder / f"{i}.wav", wave + noise, 16000)
    return root


def passes(task: Path, store: Path, asked_for: tuple[str, ...]) -> bool:
    """Whether a dry run plans it."""
    try:
        config = override(Config(), parse_overrides([*TINY, *asked_for]))
        with redirect_stdout(io.StringIO()):
            show_plan(Request(config, run_options(store=str(store)), task=str(task)))
    except ConfigError:
        return False
    return True


def trouble(task: Path, place: Path, asked_for: tuple[str, ...]) -> str:
    """Run it as a person does; why it did not end well, or nothing."""
    said = io.StringIO()
    try:
        with redirect_stdout(said), redirect_stderr(said):
            done = unfused.run(
                task, settings=parse_overrides([*TINY, *asked_for]), store=str(place / "store"),
                tracking_uri=f"sqlite:///{place}/mlflow.db",
            )  # fmt: skip
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)[-3:]
        where = " < ".join(f"{Path(one.filename).name}:{one.lineno}" for one in reversed(frames))
        return f"{type(error).__name__}: {str(error).strip()[-600:]} ({where})"
    right = [arm["accuracy"]["mean"] for arm in done.summary["arms"].values()]
    return "" if right and all(0 <= one <= 1 for one in right) else f"accuracies {right}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tries", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    given_ = parser.parse_args()
    tried = passed = 0
    runtime.start(run_options())
    with tempfile.TemporaryDirectory() as place:
        task = write_task(Path(place) / "task")
        for asked_for in drawn(6 * given_.tries, given_.seed):
            if tried == given_.tries:
                break
            if not passes(task, Path(place) / "store", asked_for):
                continue
            tried, began = tried + 1, time.monotonic()
            wrong = trouble(task, Path(place), asked_for)
            passed += not wrong
            took = time.monotonic() - began
            print(f"{wrong or 'ok'}  {took:.0f} s  {shlex.join(asked_for)}", flush=True)
    print(f"{passed} of {tried} requests that a dry run lets pass ended as they should")
    sys.exit(passed < tried)


if __name__ == "__main__":
    main()
