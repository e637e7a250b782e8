"""A setting that is added later leaves the identity of what was built before alone."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Annotated, Any

import pytest
from pydantic import create_model

from unfused import stages
from unfused.config import Config, DataConfig, OffAt, Section, override
from unfused.config.choices import kinds
from unfused.pipeline import Node, graph
from unfused.store import artifact_key

MORE_NODES = {"clusterings": 2, "finetune.use_validation": True}


@cache
def later(kind: type[Section]) -> type[Section]:
    """A section with one more setting."""
    added = (Annotated[float, OffAt(0.0)], 0.0)
    return create_model(f"Grown{kind.__name__}", __base__=kind, added_later=added)


def grown(section: Section, value: float) -> Section:
    """The section as it would be with one more setting, also in the sections inside it."""
    values = {
        name: grown(inner, value) if isinstance(inner, Section) else inner
        for name, _, inner in section.fields()
    }
    return later(type(section)).model_construct(**values, added_later=value)


def nodes() -> Iterator[Node]:
    """The nodes of all arms, with every objective and every kind of encoder."""
    for objective in kinds("objectives"):
        for encoder in kinds("models.encoders"):
            changes = {"pretrain.objective": objective, "encoder.kind": encoder}
            yield from graph(override(Config(), changes | MORE_NODES), has_corpus=True)


def key(node: Node, config: dict[str, Any]) -> str:
    identity = {name: section.identity() for name, section in config.items()}
    inputs = {name: f"{ref.node}/{ref.part}" for name, ref in node.inputs.items()}
    return artifact_key(node.stage, stages.get(node.stage).version, identity, inputs)


def test_a_setting_added_to_every_section_changes_no_key_where_it_is_off():
    for node in nodes():
        off = {name: grown(section, 0.0) for name, section in node.config.items()}
        assert key(node, off) == key(node, dict(node.config)), node.name


def test_it_changes_every_key_where_it_is_on():
    for node in nodes():
        if node.outside:
            continue
        on = {name: grown(section, 0.5) for name, section in node.config.items()}
        assert key(node, on) != key(node, dict(node.config)), node.name


def test_every_section_of_the_configuration_is_read_by_some_node():
    read = {type(section) for node in nodes() for section in node.config.values()}
    sections = {type(value) for _, _, value in Config().fields() if isinstance(value, Section)}
    # What `data` decides, splits and repeats, is in the listing of the clips that ingest is given.
    assert sections - {DataConfig} <= read


@pytest.mark.parametrize("knob", ["pretrain.projector_dim", "pretrain.temperature"])
def test_an_objective_is_known_by_its_own_settings_alone(knob):
    def identity(changes: dict[str, Any]) -> Any:
        chosen = {"pretrain.objective": "nt_xent", **changes}
        return override(Config(), chosen).pretrain.identity()

    assert set(identity({})["objective"]) == {
        "kind",
        "projector_hidden",
        "projector_dim",
        "temperature",
    }
    assert identity({knob: 5}) != identity({})
