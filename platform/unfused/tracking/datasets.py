"""Ingested clips as MLflow's data sets, under a name that a person knows.

The rule of this file: a data set is named after the folder or manifest that was given and leads
there; where its clips lie in the store, how many, of which classes and their digest is its profile.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from unfused import corpora
from unfused.tracking.metrics import of_tree

DIGEST_LENGTH = 12
"""Of what stands beside a data set's name; MLflow keeps 36 characters, the profile has all."""
LABELS = ".labels"


@dataclass
class DataSets:
    """The parts that the ingest nodes of a run have made.

    Args:
        store: URI of the artifact store.
        places: folder or manifest of the `task` and the `corpus`.
    """

    store: str
    places: Mapping[str, str]
    _parts: dict[str, tuple[str, Mapping[str, Any]]] = field(default_factory=dict)

    def remember(self, node: str, artifact: str, facts: Mapping[str, Any]) -> list[str]:
        """Note the parts of an ingest node; returns what they are called upstream.

        Args:
            node: as it is called, as `fold0/ingest/task`.
            artifact: stage and key.
            facts: of its manifest.
        """
        parts = facts.get("parts", {})
        refs = {f"{artifact}:{name}": (node, part) for name, part in parts.items()}
        self._parts |= refs
        return list(refs)

    def place(self, node: str) -> str:
        """The folder or manifest that an ingest node reads, as far as it is known."""
        return self.places.get(_role(node), "")

    def num_clips(self, part: str) -> int:
        """Clips of a split, over all folds."""
        parts = ((node, f) for ref, (node, f) in self._parts.items() if _part(ref) == part)
        return sum(_num_clips(facts) for node, facts in parts if "@" not in node)

    def known(self, refs: list[str]) -> list[str]:
        """Those of some references that are parts, each once."""
        return [ref for ref in dict.fromkeys(refs) if ref in self._parts]

    def as_input(self, ref: str, context: str) -> Any:
        """A part as an input of a run."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        node, facts = self._parts[ref]
        given = self.place(node) or self._stored(ref)
        data = Dataset(
            name=self._name(ref),
            digest=facts["digest"][:DIGEST_LENGTH],
            source_type=given.partition("://")[0] if "://" in given else "local",
            source=json.dumps({"uri": given}),
            profile=json.dumps(self._profile(ref)),
        )
        return DatasetInput(data, [InputTag("mlflow.data.context", context)])

    def _name(self, ref: str) -> str:
        node, _ = self._parts[ref]
        role = _role(node)
        known = corpora.title(self.places[role]) if role in self.places else ""
        fold = node.rpartition("ingest/")[0].strip("/")
        return " ".join(filter(None, (known, fold, _part(ref).replace(LABELS, " labels"))))

    def _profile(self, ref: str) -> dict[str, Any]:
        _, facts = self._parts[ref]
        told = {"num_clips": _num_clips(facts)} | {"num_classes": len(facts.get("classes", ()))}
        classes = {"classes": facts["classes"]} if "classes" in facts else {}
        where = {"digest": facts["digest"], "store": self._stored(ref)}
        return {k: v for k, v in told.items() if v} | classes | where | of_tree(facts)

    def _stored(self, ref: str) -> str:
        return f"{self.store}/{ref.replace(':', '/', 1)}"


def _role(node: str) -> str:
    """`task` or `corpus`; a second ingest, at a rate that a teacher wants, is of the same clips."""
    return node.rpartition("/")[2].partition("@")[0]


def _part(ref: str) -> str:
    return ref.partition(":")[2]


def _num_clips(facts: Mapping[str, Any]) -> int:
    return sum(facts.get("shards", facts.get("counts", {}).values()))
