"""The manifest is the commit: half an artifact is no artifact."""

import hashlib
import json
import os
import pickle
import shutil

import pyarrow as pa
import pytest

from unfused.store import (
    Damaged,
    FileSum,
    Folder,
    Kept,
    Store,
    StoreError,
    artifact_key,
    canonical_json,
    read_table,
    write_table,
)
from unfused.store import store as store_module
from unfused.trees import files_below


@pytest.fixture
def store(tmp_path):
    return Store.at(str(tmp_path / "store"))


@pytest.fixture
def remote(bucket, credentials, tmp_path):
    """A store in an S3 bucket; of its own for every test."""
    return Store.at(f"s3://clips/{tmp_path.name}{bucket[1]}")


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
    digest = hashlib.sha256(b"one").hexdigest()
    assert manifest["files"] == [{"name": "deep/file.bin", "size": 3, "sha256": digest}]
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


def test_nothing_of_two_builders_mixes_on_an_object_store_whenever_they_end(remote, monkeypatch):
    one, other = remote.begin("embed", "k1"), remote.begin("embed", "k1")
    for work, text in ((one, b"one"), (other, b"other")):
        (work / "deep").write("file.bin", text)
        (work / "deep").write(f"{text.decode()}.bin", text)
    copy = store_module._copy

    def meanwhile(source, target, names):
        copy(source, target, names)
        if source == one:
            remote.commit("embed", "k1", other, {"facts": {"by": "other"}})

    monkeypatch.setattr(store_module, "_copy", meanwhile)
    known = remote.commit("embed", "k1", one, {"facts": {"by": "one"}})
    assert known == remote.manifest("embed", "k1") and known["facts"] == {"by": "other"}
    assert remote.check("embed", "k1") == []
    kept = remote.kept("embed", "k1")
    assert kept.names() == ["deep/file.bin", "deep/other.bin"]
    assert (kept / "deep").read("file.bin") == b"other"
    # Each folder below is an artifact by itself, as whoever copies it has it.
    assert Kept.at(Folder(kept.uri)).names() == kept.names()
    places = {name.split("/")[0] for name in remote.folder("embed", "k1").names()}
    assert len(places - {"manifest.json"}) == 1, "the other builder's files go"
    assert not (remote.root / "work").files()


def test_what_another_builder_ends_meanwhile_is_not_set_aside(remote, monkeypatch):
    works = [remote.begin("embed", "k1") for _ in range(2)]
    for number, work in enumerate(works):
        work.write("file.bin", b"%d" % number)
    sound = Store._sound

    def looked(store, stage, key):
        found = sound(store, stage, key)
        if works:
            store.commit(stage, key, works.pop(), {"facts": {"n": 1}})
        return found

    first = works.pop(0)
    monkeypatch.setattr(Store, "_sound", looked)
    assert remote.commit("embed", "k1", first, {"facts": {"n": 0}})["facts"] == {"n": 1}
    assert remote.check("embed", "k1") == [] and not (remote.root / "damaged").names()
    assert remote.kept("embed", "k1").read("file.bin") == b"1"


def test_a_manifest_that_is_written_anew_while_it_is_read_is_read_again(remote, monkeypatch):
    _commit(remote)
    monkeypatch.setattr("unfused.store.folder.AGAIN_SECONDS", (0.0,))
    whole, torn = Folder.read, [b'{"files": [']

    def read(folder, name):
        return torn.pop() if torn and name == "manifest.json" else whole(folder, name)

    monkeypatch.setattr(Folder, "read", read)
    assert remote.manifest("embed", "k1")["facts"] == {"n": 1} and not torn
    torn += [b"{", b"{"]
    with pytest.raises(Damaged, match="no manifest"):
        remote.manifest("embed", "k1")


def test_the_last_of_two_manifests_on_an_object_store_has_its_own_files(remote, monkeypatch):
    works = [remote.begin("embed", "k1") for _ in range(2)]
    for number, work in enumerate(works):
        work.write("file.bin", b"%d" % number)
    monkeypatch.setattr(Store, "_sound", lambda *_: None)
    for number, work in enumerate(works):
        # As if neither had seen the other's.
        place = remote.folder("embed", "k1")
        monkeypatch.setattr(Store, "set_aside", lambda *_: None)
        assert remote.commit("embed", "k1", work, {"facts": {"n": number}})["facts"]["n"] == number
        assert Kept.at(place).read("file.bin") == b"%d" % number
        assert remote.check("embed", "k1") == []


def test_what_is_damaged_on_an_object_store_is_set_aside_for_the_next_builder(remote):
    _commit(remote, text=b"old")
    kept = remote.kept("embed", "k1")
    kept.filesystem.delete_file(f"{kept.path}/deep/file.bin")
    with pytest.raises(Damaged, match=r"deep/file\.bin"):
        remote.manifest("embed", "k1")
    assert remote.folder("embed", "k1").holds(kept.uri)
    assert not remote.folder("embed", "k").holds(kept.uri)
    _commit(remote, text=b"new")
    assert (remote.kept("embed", "k1") / "deep").read("file.bin") == b"new"
    assert remote.keys("embed") == ["k1"]
    assert [info.base_name for info in (remote.root / "damaged").files()] == ["manifest.json"] * 2


def test_what_is_just_being_copied_to_an_object_store_is_not_damaged(remote):
    work = remote.begin("embed", "k1")
    work.write("file.bin", b"whole")
    (remote.folder("embed", "k1") / work.path[-8:]).write("file.bin", b"whole")
    assert remote.check("embed", "k1") == []
    work.delete()
    assert [one.file for one in remote.check("embed", "k1")] == ["manifest.json"]


@pytest.mark.parametrize("text", [b"{half", b"[]", b'"text"', b'{"files": [{"size": 3}]}'])
def test_a_damaged_manifest_is_told_with_its_remedy(store, text):
    _commit(store)
    store.folder("embed", "k1").write("manifest.json", text)
    with pytest.raises(StoreError, match="delete that folder"):
        store.manifest("embed", "k1")
    assert [one.file for one in store.check("embed", "k1")] == ["manifest.json"]


def _damage(place, how):
    file = place / "deep/file.bin"
    match how:
        case "gone":
            file.unlink()
        case "cut":
            file.write_bytes(file.read_bytes()[:-1])
        case "other bytes":
            file.write_bytes(b"eno")


@pytest.mark.parametrize("how", ["gone", "cut"])
def test_an_artifact_of_other_sizes_is_no_hit(store, how):
    _commit(store)
    _damage(store.folder("embed", "k1").local, how)
    with pytest.raises(Damaged, match=r"deep/file\.bin"):
        store.manifest("embed", "k1")


@pytest.mark.parametrize("how", ["gone", "cut", "other bytes"])
def test_what_is_read_is_what_was_written(store, how):
    _commit(store)
    folder = store.folder("embed", "k1")
    kept = Kept.of_manifest(folder, store.manifest("embed", "k1"))
    assert (kept / "deep").read("file.bin") == b"one"
    _damage(folder.local, how)
    with pytest.raises(Damaged, match=r"file\.bin"):
        (pickle.loads(pickle.dumps(kept)) / "deep").read("file.bin")
    assert [one.file for one in store.check("embed", "k1")] == ["deep/file.bin"]


def test_a_folder_that_is_no_artifact_is_set_aside_for_one(store):
    place = store.folder("embed", "k1").local
    place.mkdir(parents=True)
    (place / "left.bin").write_bytes(b"left")
    _commit(store)
    assert (store.folder("embed", "k1") / "deep").read("file.bin") == b"one"
    aside = [info.path for info in (store.root / "damaged").files()]
    assert [path.rpartition("/")[2] for path in aside] == ["left.bin"]


def test_who_commits_knows_the_manifest_as_everybody_reads_it(store):
    work = store.begin("embed", "k1")
    known = store.commit("embed", "k1", work, {"facts": {"b": 1, "a": (2,)}})
    read = store.manifest("embed", "k1")
    assert json.dumps(known) == json.dumps(read)
    assert list(known["facts"]) == ["a", "b"]


def test_a_damaged_artifact_gives_way_to_the_next_builder(store):
    _commit(store, text=b"old")
    _damage(store.folder("embed", "k1").local, "cut")
    _commit(store, text=b"new")
    assert (store.folder("embed", "k1") / "deep").read("file.bin") == b"new"
    assert store.keys("embed") == ["k1"]


def test_what_else_lies_in_the_folder_is_no_artifact(store):
    key = artifact_key("embed", 1, {}, {})
    _commit(store, key=key)
    for other in ("recordings/monday", "embed/notes", f"damaged/embed-{key}-{key[:8]}"):
        (store.root / other).write("somebody's.txt", b"")
    assert list(store.artifacts()) == [("embed", key)]


def test_a_file_that_is_written_twice_has_the_digest_of_the_last(store):
    work = store.begin("embed", "k1")
    work.write("file.bin", b"first")
    work.write("file.bin", b"second")
    (known,) = work.sums()
    assert known == FileSum("file.bin", 6, hashlib.sha256(b"second").hexdigest())
    assert work.names() == ["file.bin"]


def test_a_page_of_a_table_is_held_against_its_checksum(tmp_path):
    folder, values = Folder.of(tmp_path), pa.table({"n": list(range(1000))})
    write_table(folder, "n.parquet", values, compression="NONE", use_dictionary=False)
    assert read_table(folder, "n.parquet") == values
    path = tmp_path / "n.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
    with pytest.raises(Damaged, match=r"n\.parquet"):
        read_table(folder, "n.parquet")
    path.write_bytes(b"nothing")
    with pytest.raises(Damaged, match=r"n\.parquet"):
        read_table(folder, "n.parquet")


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


class _Away(Folder):
    """A folder of an object store that does not answer."""

    def open(self, name):
        raise OSError("When reading information for key: AWS Error NETWORK_CONNECTION: no answer")


def test_a_store_that_fails_says_nothing_of_its_files(store, monkeypatch):
    _commit(store)
    with pytest.raises(OSError, match="NETWORK_CONNECTION"):
        read_table(_Away(store.root.uri), "n.parquet")
    monkeypatch.setattr(Folder, "open", _Away.open)
    with pytest.raises(OSError, match="NETWORK_CONNECTION"):
        store.check("embed", "k1")


def test_a_folder_without_a_manifest_is_damaged_and_none_at_all_is_missing(store):
    assert store.manifest("embed", "k1") is None
    _commit(store)
    (store.folder("embed", "k1").local / "manifest.json").unlink()
    with pytest.raises(Damaged, match="it is not there"):
        store.manifest("embed", "k1")


def test_links_back_into_a_folder_are_not_followed_again(tmp_path):
    folder = Folder.of(tmp_path / "stored")
    folder.write("a/one", b"1")
    folder.write("b/two", b"22")
    for name in "ab":
        (tmp_path / "stored" / name / "up").symlink_to("..", target_is_directory=True)
    (tmp_path / "stored" / "nowhere").symlink_to("gone")
    open(os.fsencode(tmp_path / "stored") + b"/\xff", "wb").close()
    assert folder.sizes() == {"a/one": 1, "b/two": 2}
    assert Folder.of(tmp_path / "missing").files() == []


def test_what_vanishes_while_a_folder_is_listed_takes_nothing_else_along(tmp_path):
    for name in "abc":
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()

    def removing(folder):
        if folder.name == "b":
            shutil.rmtree(folder.path)
        return False

    found, again = files_below(str(tmp_path), removing)
    assert (sorted(found), again) == (["a/file", "c/file"], 0)
    with pytest.raises(FileNotFoundError):
        files_below(str(tmp_path / "b"))


def test_a_folder_in_the_place_of_a_file_is_said_to_be_one(tmp_path):
    folder = Folder.of(tmp_path)
    (tmp_path / "one").mkdir()
    with pytest.raises(IsADirectoryError):
        folder.read("one")
    with pytest.raises(Damaged, match="a folder is in its place"):
        Kept(folder.uri, {"one": FileSum("one", 3, "")}).read("one")
