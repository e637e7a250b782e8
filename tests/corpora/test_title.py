"""What people call a corpus or a task."""

from __future__ import annotations

import pytest

from unfused import corpora


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("sounds/", "sounds"),
        ("data/sounds.csv", "sounds"),
        ("data/sounds/manifest.parquet", "sounds"),
        ("s3://bucket/sounds/labels.csv", "sounds"),
        ("labels.csv", "labels"),
        ("esc10:/data/esc50", "esc10"),
        ("urbansound8k:.", "urbansound8k"),
        (None, "demo"),
    ],
)
def test_a_folder_or_manifest_is_called_what_people_call_it(place, name):
    assert corpora.title(place) == name
