"""What is installed is what is pinned, fits together, and is not known to be vulnerable."""

from __future__ import annotations

import importlib.metadata
import json
import runpy
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from conftest import ROOT

KNOWN = tomllib.loads(Path(__file__).with_name("known_vulnerabilities.toml").read_text())


def pins() -> dict[str, Requirement]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    found = [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]
    return {canonicalize_name(one.name): one for one in found}


def pinned_versions() -> dict[str, str]:
    return {name: next(iter(one.specifier)).version for name, one in pins().items()}


def vulnerable(versions: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Package, version and identifier of what is known of some versions."""
    for package, advisories in KNOWN["packages"].items():
        for identifier, affected in advisories.items():
            for one in [affected] if isinstance(affected, str) else affected:
                where = Requirement(f"{package}{one}").specifier
                if package in versions and where.contains(versions[package], prereleases=True):
                    yield package, versions[package], identifier


def test_no_pinned_version_is_known_to_be_vulnerable():
    assert list(vulnerable(pinned_versions())) == []


def test_a_vulnerable_version_would_be_found():
    old = {"torch": "2.5.1", "urllib3": "2.0.5", "flask": "3.1.1"}
    found = {identifier for _, _, identifier in vulnerable(old)}
    assert {"CVE-2025-32434", "CVE-2023-43804"} <= found and "CVE-2025-47278" not in found


def test_the_list_is_of_packages_that_are_pinned():
    assert KNOWN["packages"].keys() <= pins().keys()


def test_what_is_installed_is_what_is_pinned():
    found = {canonicalize_name(d.metadata["Name"]): d for d in importlib.metadata.distributions()}
    here = {name: found[name].version for name in pins() if name in found}
    assert len(here) > 100
    assert {n: v for n, v in here.items() if not pins()[n].specifier.contains(v, True)} == {}


def requirements_of(package: str) -> list[Requirement]:
    """What a package requires here without extras."""
    found = map(Requirement, importlib.metadata.requires(package) or ())
    return [one for one in found if not one.marker or one.marker.evaluate({"extra": ""})]


def test_every_requirement_is_pinned_to_a_version_that_it_takes():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    wanted = [Requirement(text) for group in groups for text in group]
    for name in pins():
        try:
            wanted += requirements_of(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    versions = pinned_versions()
    assert len(wanted) > 300
    assert [
        str(one)
        for one in wanted
        if not one.specifier.contains(versions.get(canonicalize_name(one.name), "0"), True)
    ] == []


@pytest.fixture(scope="module")
def bill(tmp_path_factory) -> dict:
    """The bill of materials, as `make sbom` writes it."""
    file = tmp_path_factory.mktemp("sbom") / "sbom.json"
    runpy.run_path(str(ROOT / "deploy" / "sbom.py"))["write"](file)
    return json.loads(file.read_text())


def test_the_bill_of_materials_names_every_package_and_what_it_stands_on(bill):
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert bill["metadata"]["component"]["name"] == "unfused"
    parts = {one["bom-ref"]: one for one in bill["components"]}
    versions = {one["name"]: one["version"] for one in parts.values()}
    assert versions["ray"] == pinned_versions()["ray"] and len(parts) > 100
    assert all(one["purl"].startswith(f"pkg:pypi/{one['name']}@") for one in parts.values())
    upward = {one["ref"]: one["dependsOn"] for one in bill["dependencies"]}
    own = upward.pop(bill["metadata"]["component"]["bom-ref"])
    assert any(ref.startswith("pkg:pypi/mlflow@") for ref in own)
    assert upward.keys() == parts.keys()
    assert {ref for refs in [own, *upward.values()] for ref in refs} <= parts.keys()
