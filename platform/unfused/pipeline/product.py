"""The model that a finished run leaves in the store.

The rule of this file: a model is an artifact like any other, under a key that what it was made of
decides; the same run again finds it there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from unfused import corpora, inference, provenance, runtime
from unfused.arms import ARMS
from unfused.config import flatten
from unfused.inference.card import card
from unfused.inference.folder import License, Measured, ModelFacts
from unfused.pipeline.graph import Ref
from unfused.pipeline.healing import told
from unfused.pipeline.plan import Plan, Step
from unfused.secrets import hidden, hidden_in, without_login
from unfused.store import Damaged, Folder, artifact_key
from unfused.teachers import TeacherFacts

STAGE, VERSION = "model", 1


def leave_model(plan: Plan, arm: str, run: str, tell: Callable[[str], None]) -> Folder:
    """Write the model of an arm's first draw, unless it is there.

    Args:
        plan: of the finished run.
        arm: which arm.
        run: the run's id.
        tell: takes a sentence about one that was damaged.

    Returns:
        The model's folder in the store.

    Raises:
        Damaged: one is, and the run is strict.
    """
    scored = _scored(plan, arm)
    classifier = plan.artifact(_classifier(plan, arm))
    inputs = {"classifier": classifier.identity, "scores": str(scored.key)}
    key = artifact_key(STAGE, VERSION, {"name": corpora.title(plan.request.task)}, inputs)
    with runtime.alone(plan.store.root, f"{STAGE}/{key}"):
        if not _is_whole(plan, key, tell):
            made = provenance.collect()
            facts = _facts(plan, arm, run, made)
            work = plan.store.begin(STAGE, key)
            inference.write(work, facts, classifier.folder, card(facts))
            manifest = {
                "node": f"{STAGE}/{arm}",
                "stage": STAGE,
                "key": key,
                "version": VERSION,
                "config": {"name": facts.name},
                "inputs": inputs,
                "facts": facts.model_dump(mode="json"),
                "seconds": 0.0,
                "provenance": {**made, "ended": time.time()},
            }
            plan.store.commit(STAGE, key, work, manifest)
    return plan.store.kept(STAGE, key)


def _is_whole(plan: Plan, key: str, tell: Callable[[str], None]) -> bool:
    """Whether a model is there as it was written; one that is damaged is set aside and told."""
    try:
        if plan.store.manifest(STAGE, key) is None:
            return False
        wrong = plan.store.check(STAGE, key)
    except Damaged as damage:
        wrong = [damage]
    if wrong and plan.request.options.strict:
        raise wrong[0]
    if wrong and (aside := plan.store.set_aside(STAGE, key)):
        tell(told(f"{STAGE}/{key}", wrong[0], aside))
    return not wrong


def _classifier(plan: Plan, arm: str) -> Ref:
    return Ref(f"{plan.repetitions[0]}{ARMS[arm].classifier}")


def _scored(plan: Plan, arm: str) -> Step:
    split = plan.request.config.evaluate.split
    return plan.steps[f"{plan.repetitions[0]}{ARMS[arm].scores(split)}"]


def _facts(plan: Plan, arm: str, run: str, made: dict[str, Any]) -> ModelFacts:
    scored, steps = _scored(plan, arm), plan.steps
    classifier = plan.artifact(_classifier(plan, arm))
    taught = steps[_classifier(plan, arm).node].node.inputs
    clips = plan.artifact(scored.node.inputs["clips"])
    return ModelFacts(
        name=corpora.title(plan.request.task),
        arm=arm,
        sample_rate=clips.facts.audio.sample_rate,
        channel=clips.facts.audio.channel,
        durations=plan.artifact(taught["clips"]).facts.durations,
        scorer=classifier.facts.model_copy(update={"num_repeats": 1}),
        measured=_measured(scored, classifier.facts),
        licenses=_licenses(plan),
        lineage=_lineage(plan, run, made),
    )


def _measured(scored: Step, classifier: Any) -> Measured:
    facts, validated = scored.facts, classifier.cross_validated
    return Measured(
        split=facts.split,
        num_clips=facts.num_clips,
        chance=1 / len(facts.classes),
        accuracy=facts.accuracy,
        balanced_accuracy=facts.balanced_accuracy,
        macro_f1=facts.macro_f1,
        own_accuracy=facts.accuracy[0],
        cross_validated=validated[0] if validated else None,
    )


def _licenses(plan: Plan) -> list[License]:
    told = {
        step.facts.name: step.facts.license
        for step in plan.steps.values()
        if isinstance(step.facts, TeacherFacts) and step.facts.file
    }
    return [License(of=name, license=text) for name, text in told.items()]


def _lineage(plan: Plan, run: str, made: dict[str, Any]) -> dict[str, Any]:
    request = plan.request
    return {
        "run": run,
        "store": without_login(plan.store.root.uri),
        "task": hidden(request.task or ""),
        "corpus": hidden(request.corpus or ""),
        "teachers": hidden_in(request.specs),
        "code": made["code_digest"],
        "commit": made["git_commit"],
        "packages": made["packages"],
        "config": flatten(request.config),
        "keys": {step.node.name: step.key for step in plan.steps.values()},
    }
