"""The folder called platform never hides Python's own module, and imports point one way."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from conftest import ROOT


@pytest.mark.parametrize("path", [None, "."])
def test_pythons_own_platform_module_works_in_the_project_root(path):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment |= {"PYTHONPATH": path} if path else {}
    command = [sys.executable, "-c", "import platform; print(platform.system())"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "Linux", done.stderr


def test_platform_is_a_source_root_and_no_package():
    assert not (ROOT / "platform" / "__init__.py").exists()


def test_the_import_contracts_hold():
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "platform")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_what_reads_clips_for_others_imports_no_torch():
    """Two seconds and half a gigabyte in every reader of Ray Data."""
    code = "import sys, unfused.data, unfused.stages.ingest; sys.exit('torch' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "platform")}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0


def test_the_constraints_pin_every_version_and_name_no_host():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert len(pins) > 100
    assert all("==" in line for line in pins)
    assert not any("://" in line for line in lines)


def test_the_gpu_extra_resolves_beside_the_constraints_to_the_real_cuml(tmp_path):
    """Resolved, never installed: 3.8 GB."""
    resolved = tmp_path / "resolved.txt"
    command = [
        sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--extra", "gpu",
        "--constraint", "constraints.txt", "--no-annotate", "--no-header",
        "--output-file", str(resolved), "pyproject.toml",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    versions = dict(
        line.partition(";")[0].strip().split("==")
        for line in resolved.read_text().splitlines()
        if "==" in line
    )
    assert versions["cuml-cu13"].startswith("26.10.")
    assert versions["torch"] == "2.13.0" and versions["ray"] == "2.60.0"


@pytest.mark.parametrize("file", ["cluster.yaml", "clusters/local.yaml"])
def test_ray_up_takes_the_cluster_files_as_they_are(file):
    import yaml
    from ray.autoscaler._private.util import prepare_config, validate_config

    settings = yaml.safe_load((ROOT / file).read_text())
    validate_config(prepare_config(settings))
    ports = " ".join(settings["head_start_ray_commands"])
    assert "--dashboard-host=127.0.0.1" in ports and "RAY_AUTH_MODE=token" in ports
    assert {".venv", "/store", "*.db"} <= set(settings["rsync_exclude"])


def test_what_the_cluster_may_grow_to_is_what_its_file_starts():
    import yaml

    settings = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    (said,) = re.findall(r'UNFUSED_GROWS_TO="([^"]*)"', settings["head_start_ray_commands"][-1])
    kinds = [kind.partition("*") for kind in said.split(";")]
    workers = {n: t for n, t in settings["available_node_types"].items() if n != "head"}
    counts = [t["max_workers"] for t in workers.values() if t["max_workers"]]
    assert [int(count) for count, _, _ in kinds] == counts
    assert all("GPU=1" in shape for _, _, shape in kinds)
    pods = yaml.safe_load((ROOT / "deploy" / "kuberay.yaml").read_text())["spec"]["rayClusterSpec"]
    (head,) = pods["headGroupSpec"]["template"]["spec"]["containers"]
    (group,) = pods["workerGroupSpecs"]
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    shape = f"CPU={limits['cpu']},GPU={limits['nvidia.com/gpu']}"
    grows = {entry["name"]: entry["value"] for entry in head["env"]}["UNFUSED_GROWS_TO"]
    assert grows == f"{group['maxReplicas']}*{shape}"
