"""A pipeline and a search with a secret wherever one can be given leave none of them anywhere."""

from __future__ import annotations

import os
import re
from base64 import b64encode
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from conftest import TINY, Program
from small_searches import write_space
from tracked_runs import served

MARK = "Hush0000"
"""What every secret below begins with."""
SMALL = [a for a in TINY if not a.startswith(("rounds", "pretrain.epochs", "finetune.num_repeats"))]
SMALL += ["rounds=1", "pretrain.epochs=1", "finetune.num_repeats=1", "arms=[unfused]"]
SMALL += ["teachers.clustered=encoders", "ingest.max_bad_fraction=0.2"]
SPACE = 'space = {"distill.temperature": FloatDistribution(1.0, 4.0)}\n'


@pytest.fixture
def secretive(program, bucket, small_task, tmp_path) -> Iterator[Program]:
    """The program with a store and a corpus in S3, an MLflow server, and secrets for all."""
    put, query = bucket
    for file in sorted((small_task / "train" / "low").iterdir()):
        put(f"corpus/{file.name}", file.read_bytes())
    endpoint = parse_qs(query.lstrip("?"))["endpoint_override"][0]
    one = program("secrets")
    one.extra = {
        "AWS_ENDPOINT_URL": f"http://{endpoint}",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_SECRET_ACCESS_KEY": f"{MARK}-aws",
        "MLFLOW_TRACKING_TOKEN": f"{MARK}-token",
        "SOME_API_KEY": f"{MARK}-key",
        "UNFUSED_STORE": f"s3://{MARK}-id:{MARK}-store@clips/store",
    }
    with served(f"sqlite:///{tmp_path}/mlflow.db", tmp_path) as (address, _):
        one.extra["MLFLOW_TRACKING_URI"] = address.replace("://", f"://me:{MARK}-mlflow@")
        yield one


def run(one: Program, line: str, *arguments: str, script: str = "full") -> dict[str, bytes]:
    """Run to the end: what it says, and Ray's session as it is when it says `line`."""
    process, seen = one.start_until(line, *arguments, script=script)
    processes = [_command_line(folder) for folder in Path("/proc").glob("[0-9]*")]
    of_ray = re.compile(rf"/\S*session_[\w-]+_{process.pid}\b")
    (session,) = {found[0] for text in processes for found in [of_ray.search(text)] if found}
    kept = contents(Path(session))
    seen += process.communicate(timeout=400)[0]
    assert process.returncode == 0, seen
    assert len(kept) > 10 and not [text for text in processes if MARK in text]
    return kept | {f"output of {script}": seen.encode()}


def _command_line(folder: Path) -> str:
    try:
        return (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder; one that goes meanwhile is left out."""
    found = {}
    for root, _, names in os.walk(folder):
        for path in (Path(root, name) for name in names):
            with suppress(FileNotFoundError):
                found |= {str(path): path.read_bytes()} if path.is_file() else {}
    return found


def stored(one: Program) -> dict[str, bytes]:
    """Everything in the bucket but the corpus."""
    from pyarrow import fs

    store = fs.S3FileSystem(
        access_key="key", secret_key="secret", region="us-east-1",
        endpoint_override=one.extra["AWS_ENDPOINT_URL"],
    )  # fmt: skip
    found = store.get_file_info(fs.FileSelector("clips/store", recursive=True))
    return {i.path: store.open_input_file(i.path).read() for i in found if i.is_file}


@pytest.fixture
def asked(small_task) -> list[str]:
    corpus = f"s3://{MARK}-id:{MARK}-corpus@clips/corpus"
    return ["--task", str(small_task), "--corpus", corpus, *SMALL, "--summary", "summary.json"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_leaves_no_secret_anywhere(secretive, asked, tmp_path):
    kept = run(secretive, "distill/unfused built", *asked)
    kept |= contents(secretive.folder) | contents(tmp_path) | stored(secretive)
    names = {Path(path).name for path in kept}
    assert {"manifest.json", "run.json", "model.json", "mlflow.db", "MLmodel"} <= names
    check(kept)
    assert b"***" in kept["output of full"]


@pytest.mark.slow
@pytest.mark.extra
@pytest.mark.timeout(900)
def test_a_search_leaves_no_secret_anywhere(secretive, asked, tmp_path):
    space = write_space(tmp_path, SPACE)
    study = f"sqlite:///file:{tmp_path}/study.db?uri=true&password={MARK}-study"
    more = ["--space", space, "--num-trials", "1", "--study-storage", study]
    kept = run(secretive, "trial 0 complete", *asked, *more, script="search")
    kept |= contents(secretive.folder) | contents(tmp_path) | stored(secretive)
    assert "study.db" in {Path(path).name for path in kept}
    check(kept)


def check(kept: dict[str, bytes]) -> None:
    marks = [MARK.encode(), b64encode(f"me:{MARK}".encode())[:-4]]
    found = {
        path: content[max(0, at - 200) : at + 200]
        for path, content in kept.items()
        if (at := max(map(content.find, marks))) >= 0
    }
    assert not found, found
