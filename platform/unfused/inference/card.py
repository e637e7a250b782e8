"""The model card: what a model is, in Markdown, for whoever finds its folder.

The rule of this file: it says what `model.json` says, and nothing else.
"""

from __future__ import annotations

import statistics

from unfused.arms import ARMS
from unfused.inference.folder import ModelFacts


def card(facts: ModelFacts) -> str:
    """The card."""
    return "\n\n".join([_head(facts), _use(facts), _scores(facts), _made_of(facts)]) + "\n"


def _head(facts: ModelFacts) -> str:
    arm = ARMS.get(facts.arm)
    meaning = f" ({arm.meaning})" if arm else ""
    shown = ", ".join(f"`{name}`" for name in facts.classes[:20])
    more = f" and {len(facts.classes) - 20} more" if len(facts.classes) > 20 else ""
    return (
        f"# {facts.name}\n\n"
        f"A classifier of audio with {len(facts.classes)} classes: {shown}{more}.\n"
        f"Made by the arm `{facts.arm}`{meaning} from {facts.scorer.num_labels} labels."
    )


def _use(facts: ModelFacts) -> str:
    cut = facts.scorer.cut
    windows = "whole clips"
    if cut:
        windows = f"windows of {cut.num_samples / facts.sample_rate:.2f} s that cover a clip"
    low, _, middle, _, high = facts.durations
    return (
        "## Use\n\n"
        "```\nunfused predict THIS_FOLDER clip.wav recordings/\n```\n\n"
        "```python\nimport unfused\n\n"
        "print(unfused.load('THIS_FOLDER').predict('clip.wav'))\n```\n\n"
        f"Recordings of any rate and number of channels; it hears {facts.sample_rate} Hz, mono, as"
        f" {windows}. It was taught with clips of {low:.2f} to {high:.2f} s (half of them up to"
        f" {middle:.2f} s)."
    )


def _scores(facts: ModelFacts) -> str:
    found = facts.measured
    sd = f" ± {statistics.stdev(found.accuracy):.3f}" if len(found.accuracy) > 1 else ""
    balanced = ""
    if found.balanced_accuracy:
        mean = statistics.fmean(found.balanced_accuracy)
        balanced = f"| balanced accuracy (mean recall of the classes), likewise | {mean:.3f} |\n"
    validated = "not measured"
    if found.cross_validated is not None:
        validated = f"{found.cross_validated:.3f}"
    return (
        "## Measured\n\n"
        f"| on {found.num_clips} {found.split} clips | |\n|---|---|\n"
        f"| accuracy of this model | {found.own_accuracy:.3f} |\n"
        f"| accuracy, all {len(found.accuracy)} draws of the labels |"
        f" {statistics.fmean(found.accuracy):.3f}{sd} |\n"
        f"{balanced}"
        f"| macro-F1, likewise | {statistics.fmean(found.macro_f1):.3f} |\n"
        f"| accuracy on its own labelled clips, each left out in turn | {validated} |\n"
        f"| accuracy of a guess | {found.chance:.3f} |"
    )


def _made_of(facts: ModelFacts) -> str:
    lines = ["## Made of", ""]
    for name, value in facts.lineage.items():
        if isinstance(value, str) and value:
            lines.append(f"- {name.replace('_', ' ')}: `{value}`")
    for one in facts.licenses:
        lines.append(f"- teacher `{one.of}`: {one.license or 'states no license'}")
    if not facts.licenses:
        lines.append("- no teacher that others have made, whose licence would hold for this model")
    lines.append("- the keys of all stages, settings and versions: `model.json`")
    return "\n".join(lines)
