"""From laptop to cluster, with real parts: several nodes, an S3 server, `ray up` over ssh.

These end every Ray process of this machine (`ray stop` does), so they run by themselves:
`make test-cluster`.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import pytest
import yaml

from conftest import ROOT, TINY
from unfused import provenance

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
OPEN = {"RAY_AUTH_MODE": "disabled"}
"""`ray start` asks for a token wherever one was ever made."""
QUICK = [
    *(a for a in TINY if not a.startswith("rounds")),
    "rounds=1",
    "teachers.clustered=encoders",
]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def wait_for(url: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(url, timeout=2)
            return
        time.sleep(0.5)
    raise AssertionError(f"nothing answers at {url}")


@pytest.fixture
def s3_environment(tmp_path):
    """A real S3-protocol server on loopback with one bucket; what a program needs to know of it."""
    port = free_port()
    server = subprocess.Popen(
        [str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    try:
        wait_for(environment["AWS_ENDPOINT_URL"])
        make = urllib.request.Request(f"{environment['AWS_ENDPOINT_URL']}/bucket", method="PUT")
        urllib.request.urlopen(make, timeout=10)
        yield environment
    finally:
        server.terminate()
        server.wait()


def _numbers(summary: dict) -> dict:
    return {"arms": summary["arms"], "pseudo_labels": summary["pseudo_labels"]}


def test_a_store_in_object_storage_gives_the_numbers_of_a_local_one(
    program, small_task, s3_environment, tmp_path
):
    local = program("local").run("--task", str(small_task), *QUICK)
    remote = program("remote")
    remote.extra = s3_environment
    arguments = ("--task", str(small_task), "--store", "s3://bucket/store", *QUICK)
    first = remote.run(*arguments)
    assert _numbers(first) == _numbers(local)
    assert not (remote.folder / "store").exists()
    again = remote.run(*arguments)
    assert {stage["status"] for stage in again["stages"]} == {"hit"}
    assert _numbers(again) == _numbers(local)

    embedded = remote("--store", "s3://bucket/demo", "--preset", "demo", "--dry-run")
    assert embedded.returncode == 0 and "0 hits" in embedded.stdout, embedded.stderr

    space = tmp_path / "space.py"
    space.write_text(
        "from optuna.distributions import FloatDistribution\n"
        "space = {'distill.temperature': FloatDistribution(1, 6)}\n"
    )
    searched = remote.run(*arguments, "--space", str(space), "--num-trials", "2", script="search")
    assert [trial["state"] for trial in searched["trials"]] == ["COMPLETE"] * 2
    assert searched["folder"].startswith("s3://bucket/store/searches/")


class Nodes:
    """Four nodes of one CPU each, so that two workers are never on one: of `ray start`, every node
    a group of processes with a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._port, self._nodes, self._folders = free_port(), {}, []
        self.address = f"127.0.0.1:{self._port}"
        self._start(folder, "head", "--head", f"--port={self._port}", "--include-dashboard=false")
        for name in ("one", "two", "three"):
            self._start(folder, name, f"--address={self.address}")
        deadline = time.monotonic() + 120
        while len(known := self._known()) < 4 and time.monotonic() < deadline:
            time.sleep(1)
        assert len(known) == 4, known
        self._names = known
        (self.head,) = (node_id for node_id, name in known.items() if name == "head")

    def _start(self, folder: Path, name: str, *arguments: str) -> None:
        ray = str(Path(sys.executable).with_name("ray"))
        size = ("--num-cpus=1", "--object-store-memory=100000000")
        self._folders.append(tempfile.mkdtemp(prefix="ray-"))  # a socket's path has to be short
        own = (f"--labels=name={name}", f"--temp-dir={self._folders[-1]}")
        self._nodes[name] = subprocess.Popen(
            [ray, "start", "--block", *size, *own, *arguments],
            start_new_session=True,
            env=os.environ | OPEN,
            stdout=open(folder / f"{name}.log", "w"),  # noqa: SIM115
            stderr=subprocess.STDOUT,
        )
        if name == "head":
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                with contextlib.suppress(OSError):
                    socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
                    return
                time.sleep(0.5)

    def _known(self) -> dict[str, str]:
        nodes = asked(self.address, "[(n['NodeID'], n['Labels']) for n in ray.nodes()]")
        return {node_id: labels["name"] for node_id, labels in nodes if "name" in labels}

    def kill(self, node_id: str) -> None:
        os.killpg(self._nodes[self._names[node_id]].pid, signal.SIGKILL)

    def end(self) -> None:
        for process in self._nodes.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=60)
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def nodes(tmp_path):
    cluster = Nodes(tmp_path)
    yield cluster
    cluster.end()


def asked(address: str, expression: str):
    """The value of an expression on a cluster."""
    code = (
        "import ray, json;"
        f"ray.init(address={address!r}, log_to_driver=False);"
        f"print(json.dumps({expression}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | OPEN,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def _nodes_with_workers(address: str) -> set[str]:
    """Ids of the nodes that hold Ray Train's workers now."""
    held = "[n for g in ray.util.placement_group_table().values() if g['state'] == 'CREATED'"
    return set(asked(address, f"{held} for n in g['bundles_to_node_id'].values()]"))


def test_a_node_that_dies_while_two_nodes_train_is_survived(program, small_task, nodes):
    one = program("nodes")
    one.extra = {"RAY_ADDRESS": nodes.address, **OPEN}
    settings = [a for a in QUICK if not a.startswith("pretrain.epochs")] + ["pretrain.epochs=60"]
    arguments = ["--task", str(small_task), "--num-workers", "2", *settings, "arms=[teacher]"]
    process, said = one.start_until("pretrain epoch 2/", *arguments, "--summary", "summary.json")
    try:
        workers = _nodes_with_workers(nodes.address)
        assert len(workers) == 2, said
        nodes.kill(next(iter(workers - {nodes.head})))
        said += process.communicate(timeout=400)[0]
    finally:
        process.kill()
    assert process.returncode == 0, said
    summary = json.loads((one.folder / "summary.json").read_text())
    pretrain = next(s for s in summary["stages"] if s["name"] == "pretrain")
    assert pretrain["status"] == "built" and pretrain["resumed_from_epoch"] >= 2


def test_more_gpus_than_there_will_ever_be_are_refused_in_seconds(program, small_task):
    one = program("gpus")
    began = time.monotonic()
    refused = one("--task", str(small_task), "--num-workers", "8", "--gpus-per-worker", "1")
    assert refused.returncode == 2
    assert "needs 8 GPUs" in refused.stderr and time.monotonic() - began < 30
    assert not (one.folder / "store").exists() and not (one.folder / "mlflow.db").exists()


def _need(program: str, package: str) -> str:
    """The path of a program, installed from the distribution where that is allowed."""
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run(["apt-get", "update"], check=False, **quiet)
        subprocess.run(["apt-get", "install", "--yes", package], check=False, **quiet)
        found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip(f"{program} is not here and cannot be installed ({package})")
    return found


@pytest.fixture
def ssh_to_myself(tmp_path):
    """sshd on loopback that lets a key of this test in; the key."""
    sshd = _need("sshd", "openssh-server")
    _need("rsync", "rsync")
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", 22)) == 0:
            pytest.skip("another sshd has port 22, which `ray up` uses")
    if os.geteuid() != 0:
        pytest.skip("only root can listen on port 22, which `ray up` uses")
    key, host_key = tmp_path / "key", tmp_path / "host_key"
    for file in (key, host_key):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(file)], check=True)
    Path("/run/sshd").mkdir(exist_ok=True)
    settings = {
        "HostKey": host_key,
        "AuthorizedKeysFile": f"{key}.pub",
        "ListenAddress": "127.0.0.1",
        "StrictModes": "no",
        "PasswordAuthentication": "no",
        "PidFile": tmp_path / "sshd.pid",
    }
    # What this machine's shells need to reach the package index, a login over ssh needs as well.
    indices = ("SSL_CERT", "REQUESTS_CA", "UV_", "PIP_")
    passed = [f"{k}={v}" for k, v in os.environ.items() if k.startswith(indices) and " " not in v]
    settings |= {"SetEnv": " ".join(passed)} if passed else {}
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    server = subprocess.Popen([sshd, "-D", "-e", "-f", "/dev/null", *options])
    yield key
    server.terminate()
    server.wait()


@pytest.fixture
def up_file(ssh_to_myself, tmp_path):
    """clusters/local.yaml with this machine's values, mounted to a folder of the test."""
    text = (ROOT / "clusters" / "local.yaml").read_text()
    home = tmp_path / "mounted"
    text = text.replace("~/unfused", str(home)).replace("cluster_name: unfused-local", "")
    settings = yaml.safe_load(text)
    settings["cluster_name"] = f"test-{os.getpid()}"
    settings["auth"] = {"ssh_user": getpass.getuser(), "ssh_private_key": str(ssh_to_myself)}
    settings["file_mounts"][str(home)] = str(ROOT)
    path = tmp_path / "local.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path, home


@pytest.mark.timeout(1800)
def test_ray_up_submit_and_the_run_in_mlflow(up_file, tmp_path):
    path, home = up_file
    port = free_port()
    environment = {
        **{k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"},
        "HOME": os.environ["HOME"],
        "RAY_AUTH_MODE": "token",
        "UNFUSED_MLFLOW_PORT": str(port),
    }
    ray = str(Path(sys.executable).with_name("ray"))
    text = path.read_text().replace(
        "deploy/mlflow-server.sh",
        f"UNFUSED_MLFLOW_PORT={port}"
        f" UNFUSED_MLFLOW_DATABASE=sqlite:///{tmp_path}/mlflow.db"
        f" UNFUSED_MLFLOW_ARTIFACTS={tmp_path}/mlartifacts deploy/mlflow-server.sh",
    )
    path.write_text(text.replace("127.0.0.1:5000", f"127.0.0.1:{port}"))

    def run(*words: str, timeout: float = 400) -> str:
        done = subprocess.run(
            [ray, *words],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        return done.stdout

    run("get-auth-token", "--generate")
    try:
        run("up", str(path), "--yes", "--no-config-cache")
        demo = ("python", "pipelines/full.py", "--preset", "demo")
        smaller = ("arms=[unfused]", "pretrain.epochs=4", "distill.epochs=4")
        said = run("job", "submit", "--", *demo, *smaller, timeout=1200)
        assert "evaluate/unfused built" in said and "succeeded" in said
        assert (home / "store").is_dir(), "a job starts in the project's folder"
        assert f"code {provenance.code_digest()}" in said
        _the_server_has_the_run_and_its_model(f"http://127.0.0.1:{port}")
    finally:
        end = f'cd {home} && .venv/bin/ray stop; pkill -f "[m]lflow server.*{port}"; true'
        run("exec", str(path), end)
        run("down", str(path), "--yes")
    assert not _left_of(home), "Ray and MLflow have ended"


def _left_of(home: Path, seconds: float = 30) -> str:
    """Processes that name a folder and do not end in time."""
    deadline = time.monotonic() + seconds
    while True:
        found = subprocess.run(["pgrep", "-af", str(home)], capture_output=True, text=True).stdout
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(1)


def _the_server_has_the_run_and_its_model(uri: str) -> None:
    import mlflow
    import numpy as np

    client = mlflow.MlflowClient(uri, registry_uri=uri)
    experiment = client.get_experiment_by_name("unfused").experiment_id
    runs = client.search_runs([experiment], "tags.kind = 'pipeline'")
    assert len(runs) == 1 and runs[0].info.status == "FINISHED"
    nodes = client.search_runs([experiment], "tags.kind = 'node'")
    assert {"pretrain", "cluster", "distill/unfused"} <= {n.data.tags["node"] for n in nodes}
    assert all(n.data.tags["mlflow.parentRunId"] == runs[0].info.run_id for n in nodes)
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    model = mlflow.pyfunc.load_model("models:/unfused-demo/1")
    table = model.predict(np.zeros((1, 16000), np.float32))
    assert len(table) == 1 and table.filter(like="probability").to_numpy().sum() == pytest.approx(1)
