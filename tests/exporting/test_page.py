"""The page of a model in a real browser, with real files: it says what the model says."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

import unfused
from browser import CHROMIUM, Browser
from small_classifier import CLASSES, CROP, random_classifier, tones, write_model
from unfused.commands.export import write_page
from unfused.config import ConfigError
from unfused.exporting import webruntime
from unfused.exporting.page import page
from unfused.exporting.webruntime import Runtime
from unfused.inference import Model, TimelineConfig
from unfused.inference.timeline import Grid
from unfused.store import Folder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    root = tmp_path_factory.mktemp("page")
    classifier = random_classifier(Folder.of(root / "classifier"))
    write_model(Folder.of(root / "noises"), classifier)
    return unfused.load(root / "noises")


@pytest.fixture(scope="module")
def page_file(model: Model) -> Path:
    out = Path(model.folder.path).with_name("page.html")
    try:
        write_page(model.folder, str(out), int8=False)
    except ConfigError as error:
        pytest.skip(str(error))
    return out


@pytest.fixture(scope="module")
def browser(page_file: Path) -> Iterator[Browser]:
    with Browser() as page:
        page.open(page_file.as_uri())
        page.wait("noises", "Ready.")
        yield page


def said_by(page: Browser, file: Path) -> dict:
    """What the page makes of a file that is chosen in it."""
    page.look("window.unfused = null")
    page.choose("#file", file)
    page.until(lambda: page.look("Boolean(window.unfused)"), "answer")
    return page.look("window.unfused")


def sound(rate: int, seconds: float) -> np.ndarray:
    """Falling noise in two channels (S, 2)."""
    rng = np.random.default_rng(rate)
    noise = np.cumsum(rng.standard_normal((int(rate * seconds), 2)), 0)
    noise -= np.linspace(noise[0], noise[-1], len(noise))
    return 0.7 * noise / np.abs(noise).max()


@pytest.mark.parametrize(
    ("kind", "rate"),
    [
        ("wav", 16000), ("flac", 16000), ("wav", 8000), ("flac", 44100), ("wav", 48000),
        ("mp3", 44100),
    ],
)
def test_a_file_that_is_chosen_is_labelled_as_the_model_labels_it(
    browser, model, kind, rate, tmp_path
):
    path = tmp_path / f"[a] clip.{kind}"
    soundfile.write(path, sound(rate, 1.7), rate)
    said, wanted = said_by(browser, path), model.predict(path)
    assert said["name"] == path.name and said["label"] == wanted.label
    within = 1e-3 if kind != "mp3" else 1e-2
    for name, probability in zip(CLASSES, said["probabilities"], strict=True):
        assert probability == pytest.approx(wanted.probabilities[name], abs=within)
    assert f"{path.name}: {wanted.label}" in browser.text


def test_channels_that_cancel_each_other_are_no_silence_on_the_page(browser, model, tmp_path):
    path = tmp_path / "reversed.wav"
    left = sound(16000, 1.7)[:, 0]
    soundfile.write(path, np.stack([left, -0.9 * left], axis=1), 16000)
    wanted = list(model.predict(path).probabilities.values())
    assert said_by(browser, path)["probabilities"] == pytest.approx(wanted, abs=1e-3)


def test_a_long_recording_has_a_timeline_on_the_page(browser, model, tmp_path):
    path = tmp_path / "long.wav"
    soundfile.write(path, np.concatenate(tones(CROP, count=6)), 16000)
    segments = said_by(browser, path)["segments"]
    wanted = model.timeline(path, config=unfused.inference.TimelineConfig(threshold=0.0))
    assert [CLASSES[one["label"]] for one in segments] == [one.label for one in wanted]
    for one, other in zip(segments, wanted, strict=True):
        assert one["end"] / 16000 == pytest.approx(other.end, abs=1e-3)
        assert one["probability"] == pytest.approx(other.probability, abs=1e-3)


def test_windows_that_overlap_more_are_taken_together_on_the_page(page_file, model, tmp_path):
    grid = Grid.of(16000, TimelineConfig(), model.facts.durations[2])
    text, hop = page_file.read_text(), round(grid.window / 3)
    assert text.count(f'"hop": {grid.hop}') == 1
    (tmp_path / "closer.html").write_text(text.replace(f'"hop": {grid.hop}', f'"hop": {hop}'))
    path = tmp_path / "long.wav"
    soundfile.write(path, np.concatenate(tones(CROP, count=6)), 16000)
    with Browser() as page:
        page.open((tmp_path / "closer.html").as_uri())
        page.wait("noises", "Ready.")
        segments = said_by(page, path)["segments"]
    wanted = model.timeline(path, config=TimelineConfig(overlap=2 / 3, threshold=0.0))
    assert [CLASSES[one["label"]] for one in segments] == [one.label for one in wanted]
    for one, other in zip(segments, wanted, strict=True):
        assert one["end"] / 16000 == pytest.approx(other.end, abs=1e-3)
        assert one["probability"] == pytest.approx(other.probability, abs=1e-3)


def test_names_that_look_like_places_or_tags_are_names_on_the_page(monkeypatch, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"model")
    monkeypatch.setattr("unfused.exporting.page.runtime", lambda: Runtime(b"code", b"wasm"))
    classes = ["{{WASM}}", "<!--<script>", "</script>", "a\\1"]
    text = page(tmp_path / "model.onnx", "<b>{{FACTS}}</b>", "About.", classes, 16000, 3, 1)
    assert "<h1>&lt;b&gt;{{FACTS}}&lt;/b&gt;</h1>" in text
    (facts,) = [line for line in text.splitlines() if line.startswith("const FACTS = ")]
    found = json.loads(facts.removeprefix("const FACTS = ").removesuffix(";"))
    assert found["classes"] == classes and (found["window"], found["hop"]) == (3, 1)
    assert "<" not in facts


def test_what_the_microphone_hears_is_labelled_and_sent_nowhere(page_file, model, tmp_path):
    heard = tmp_path / "heard.wav"
    soundfile.write(heard, np.tile(sound(48000, 1.0), (20, 1)), 48000)
    flags = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    with Browser(*flags, f"--use-file-for-fake-audio-capture={heard}") as page:
        page.open(page_file.as_uri())
        page.wait("noises", "Ready.")
        page.click("Record", exact=True)
        page.wait("Stop and label (3 s)")
        page.click("Stop and label")
        page.until(lambda: page.look("Boolean(window.unfused)"), "answer")
        said, shown = page.look("window.unfused"), page.look("spectrogram.hidden === false")
        asked = page.look("performance.getEntriesByType('resource').map(one => one.name)")
    wanted = model.predict(heard)
    assert said["label"] == wanted.label and shown and asked == []
    assert said["segments"][-1]["end"] >= 3 * 16000
    for name, probability in zip(CLASSES, said["probabilities"], strict=True):
        assert probability == pytest.approx(wanted.probabilities[name], abs=0.05)


def test_what_is_no_audio_is_said_on_the_page(browser, tmp_path):
    (tmp_path / "words.wav").write_bytes(b"this is no audio" * 20)
    browser.choose("#file", tmp_path / "words.wav")
    browser.wait("words.wav cannot be read by this browser")


def test_what_cannot_be_read_leaves_nothing_of_the_file_before(browser, tmp_path):
    soundfile.write(tmp_path / "clip.wav", sound(16000, 1.7), 16000)
    (tmp_path / "words.wav").write_bytes(b"this is no audio" * 20)
    shown = "[spectrogram.hidden, least.hidden, timeline.childElementCount, classes.rows.length]"
    said_by(browser, tmp_path / "clip.wav")
    assert browser.look(shown) == [False, False, 1, len(CLASSES)]
    browser.choose("#file", tmp_path / "words.wav")
    browser.wait("words.wav cannot be read by this browser")
    assert browser.look(shown) == [True, True, 0, 0]


DROP = """
    for (const [name, data] of %s) {
      const dropped = new DataTransfer();
      const bytes = Uint8Array.from(atob(data), c => c.charCodeAt(0));
      dropped.items.add(new File([bytes], name));
      const event = new DragEvent("drop", { dataTransfer: dropped });
      document.getElementById("drop").dispatchEvent(event);
    }
"""
"""JavaScript: files, each a name and base64, dropped one after the other at once."""


def test_recordings_take_turns_and_of_those_that_came_meanwhile_the_last_is_heard(
    browser, tmp_path
):
    for name, seconds in (("long.wav", 20.0), ("skipped.wav", 1.7), ("short.wav", 0.4)):
        soundfile.write(tmp_path / name, sound(16000, seconds), 16000)
    browser.look("""
        window.told = [];
        new MutationObserver(() => window.told.push(said.textContent))
          .observe(said, { childList: true })
    """)
    browser.choose("#file", tmp_path / "long.wav")
    browser.until(lambda: any("long.wav" in text for text in browser.look("window.told")))
    later = [
        (name, base64.b64encode((tmp_path / name).read_bytes()).decode())
        for name in ("skipped.wav", "short.wav")
    ]
    browser.look(DROP % json.dumps(later))
    browser.wait("short.wav: ")
    told = [text for text in browser.look("window.told") if "wav" in text]
    names = [text.removeprefix("Listening to ").partition(".wav")[0] for text in told]
    assert names == ["long", "long", "short", "short"]


def test_a_runtime_that_is_another_one_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", (tmp_path / "registry").as_uri())
    with pytest.raises(ConfigError, match="Cannot fetch"):
        webruntime.runtime()
    place = tmp_path / "registry" / "onnxruntime-web" / "-"
    place.mkdir(parents=True)
    (place / f"onnxruntime-web-{webruntime.VERSION}.tgz").write_bytes(b"something else")
    with pytest.raises(ConfigError, match="another onnxruntime-web"):
        webruntime.runtime()
    assert not (tmp_path / "unfused").exists()
