"""Input-addressed artifacts in a local folder or behind s3:// and gs://.

The rule of this room: the manifest is the commit, and it knows every file. Files are made in a
temporary place and an artifact exists once its `manifest.json` does; a crash leaves rubbish, never
half an artifact. What is read is what was written, or nobody gets it.

    <store>/<stage>/<key>/manifest.json, ...   a finished artifact; on an object store its files
                                               lie one folder below, which the manifest names
    <store>/work/<stage>-<key>-<random>/       one being made
    <store>/checkpoints/<stage>/<key>/         what an interrupted stage resumes from
    <store>/damaged/<stage>-<key>-<random>/    what was set aside, being none of these
"""

from unfused.store.files import (
    MANIFEST,
    NO_MANIFEST,
    Damaged,
    FileSum,
    Kept,
    Work,
    create_table,
    opened_table,
    read_table,
    write_table,
)
from unfused.store.folder import Folder, StoreError, StoreFailed, check_inside, npy, read_npy
from unfused.store.keys import KEY, artifact_key, canonical_json, digest
from unfused.store.store import BEGUN, Artifact, Facts, Store

__all__ = [
    "BEGUN",
    "KEY",
    "MANIFEST",
    "NO_MANIFEST",
    "Artifact",
    "Damaged",
    "Facts",
    "FileSum",
    "Folder",
    "Kept",
    "Store",
    "StoreError",
    "StoreFailed",
    "Work",
    "artifact_key",
    "canonical_json",
    "check_inside",
    "create_table",
    "digest",
    "npy",
    "opened_table",
    "read_npy",
    "read_table",
    "write_table",
]
