"""The manifest is the commit: half an artifact is no artifact."""

import json
import pickle

import pytest

from unfused.store import Folder, Store, StoreError, artifact_key, canonical_json


@pytest.fixture
def store(tmp_path):
    return Store.at(str(tmp_path / "store"))


def _commit(store, stage="embed", key="k1", text=b"one"):
    work = store.begin(stage, key)
    (work / "deep").write("file.bin", text)
    store.commit(stage, key, work, {"facts": {"n": 1}})


def test_an_artifact_exists_only_once_its_manifest_does(store):
    work = store.begin("embed", "k1")
    (work / "deep").write("file.bin", b"one")
    assert store.manifest("embed", "k1") is None
    store.commit("embed", "k1", work, {"facts": {"n": 1}})
    manifest = store.manifest("embed", "k1")
    assert manifest["files"] == [{"name": "deep/file.bin", "size": 3}]
    assert (store.folder("embed", "k1") / "deep").read("file.bin") == b"one"


def test_a_crash_leaves_nothing_that_looks_finished(store):
    (store.begin("embed", "k1") / "deep").write("file.bin", b"half")
    assert store.manifest("embed", "k1") is None
    _commit(store)
    assert (store.folder("embed", "k1") / "deep").read("file.bin") == b"one"


def test_the_first_of_two_builders_wins_and_nothing_mixes(store):
    first, second = store.begin("embed", "k1"), store.begin("embed", "k1")
    (first / "deep").write("file.bin", b"first")
    (second / "deep").write("other.bin", b"second")
    store.commit("embed", "k1", first, {"facts": {}})
    store.commit("embed", "k1", second, {"facts": {}})
    names = [f.path.rpartition("k1/")[2] for f in store.folder("embed", "k1").files()]
    assert sorted(names) == ["deep/file.bin", "manifest.json"]
    assert not (store.root / "work").files()


def test_a_damaged_manifest_is_told_with_its_remedy(store):
    _commit(store)
    store.folder("embed", "k1").write("manifest.json", b"{half")
    with pytest.raises(StoreError, match="delete that folder"):
        store.manifest("embed", "k1")


def test_a_file_is_replaced_whole(tmp_path):
    folder = Folder.of(tmp_path)
    folder.write("state.json", b"1")
    folder.write("state.json", b"22")
    assert folder.read("state.json") == b"22"
    assert [f.base_name for f in folder.files()] == ["state.json"]


def test_a_folder_travels_between_processes(tmp_path):
    folder = Folder.of(tmp_path) / "inner"
    folder.write("x", b"1")
    assert pickle.loads(pickle.dumps(folder)).read("x") == b"1"


def test_keys_depend_on_stage_version_config_and_inputs_and_on_nothing_else():
    base = artifact_key("embed", 1, {"a": 1, "b": 2}, {"x": "1"})
    assert base == artifact_key("embed", 1, {"b": 2, "a": 1}, {"x": "1"})
    others = {
        artifact_key("cluster", 1, {"a": 1, "b": 2}, {"x": "1"}),
        artifact_key("embed", 2, {"a": 1, "b": 2}, {"x": "1"}),
        artifact_key("embed", 1, {"a": 1, "b": 3}, {"x": "1"}),
        artifact_key("embed", 1, {"a": 1, "b": 2}, {"x": "2"}),
    }
    assert len(others | {base}) == 5


def test_canonical_json_refuses_what_has_no_one_spelling():
    with pytest.raises(ValueError):
        canonical_json({"a": float("nan")})
    assert json.loads(canonical_json({"b": 1, "a": [1.5]})) == {"a": [1.5], "b": 1}


def test_a_store_that_cannot_be_opened_is_told_with_its_remedy():
    with pytest.raises(StoreError, match="s3://bucket/path"):
        Folder.of("nowhere://x").files()
