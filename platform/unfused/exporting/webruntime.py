"""onnxruntime for browsers, from the npm registry.

The rule of this file: one version, whose bytes are known; it is fetched once and kept.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import urllib.request
from pathlib import Path
from typing import NamedTuple

from unfused.config import ConfigError

VERSION = "1.30.0"
INTEGRITY = (
    "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
)
"""SHA-512 of the package, as the registry states it."""
REGISTRY = "https://registry.npmjs.org"
CODE = "package/dist/ort.wasm.bundle.min.mjs"
WASM = "package/dist/ort-wasm-simd-threaded.wasm"
SECONDS = 60.0


class Runtime(NamedTuple):
    """What a page needs to run an ONNX file."""

    code: bytes
    wasm: bytes


def runtime() -> Runtime:
    """The runtime, from where it was kept or from the registry.

    Raises:
        ConfigError: it cannot be fetched, or is not what it should be.
    """
    kept = _cache() / f"onnxruntime-web-{VERSION}.tgz"
    data = kept.read_bytes() if kept.is_file() else b""
    if not _is_right(data):
        data = _fetched()
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = kept.with_suffix(".partial")
        partial.write_bytes(data)
        partial.replace(kept)
    with tarfile.open(fileobj=io.BytesIO(data)) as files:
        return Runtime(*(_member(files, name) for name in (CODE, WASM)))


def _member(files: tarfile.TarFile, name: str) -> bytes:
    found = files.extractfile(name)
    assert found is not None
    return found.read()


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unfused"


def _fetched() -> bytes:
    url = f"{_registry()}/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz"
    try:
        with urllib.request.urlopen(url, timeout=SECONDS) as answer:
            data = answer.read()
    except OSError as error:
        raise ConfigError(
            f"Cannot fetch onnxruntime-web {VERSION} from the npm registry ({error}); a page needs"
            " it once: connect, or name a mirror with NPM_CONFIG_REGISTRY."
        ) from None
    if not _is_right(data):
        raise ConfigError(
            f"The npm registry gave another onnxruntime-web {VERSION} than the one that is known"
            " here; name another registry with NPM_CONFIG_REGISTRY."
        )
    return data


def _is_right(data: bytes) -> bool:
    return base64.b64encode(hashlib.sha512(data).digest()).decode() == INTEGRITY


def _registry() -> str:
    """What the environment or npm itself is set to, else the public one."""
    found = os.environ.get("NPM_CONFIG_REGISTRY", "")
    if not found and (npm := shutil.which("npm")):
        done = subprocess.run([npm, "config", "get", "registry"], capture_output=True, text=True)
        found = done.stdout.strip() if done.returncode == 0 else ""
    return (found if "://" in found else REGISTRY).rstrip("/")
