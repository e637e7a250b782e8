"""Exported files, run by what is not torch's own modules: they say what the scorer says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from exporting import exported
from unfused import exporting, teachers
from unfused.exporting import onnxfile
from unfused.exporting.facts import METADATA_FILE
from unfused.scorers import ScorerFacts
from unfused.store import Folder

pytestmark = pytest.mark.slow
EVERYWHERE = {"", "ai.onnx"}
"""Domains of operators that every runtime has."""


@pytest.fixture(scope="module")
def clips(shared_data) -> list[np.ndarray]:
    return exported.recordings(shared_data)


@pytest.fixture(scope="module", params=["audio_ntt", "mobile_net"])
def written(request, tmp_path_factory, clips) -> tuple[Path, ScorerFacts]:
    """A folder with a classifier, its ONNX file with the 8-bit variant, and the facts."""
    folder = tmp_path_factory.mktemp("written")
    pooling = "mean" if request.param == "audio_ntt" else "attention"
    facts = exported.linear(folder, request.param, pooling=pooling)
    told = exporting.write(
        Folder.of(folder),
        facts,
        exported.RATE,
        folder / "model.onnx",
        "onnx",
        int8=True,
        calibration=clips[:6] if request.param == "mobile_net" else (),
        license="Apache-2.0",
    )
    assert told.int8_file == "model.int8.onnx" and told.embedding_dim == 64
    return folder, facts


def test_the_onnx_file_says_what_the_scorer_says_of_clips_of_any_length(written, clips):
    folder, facts = written
    found = onnxfile.probabilities(folder / "model.onnx", clips)
    np.testing.assert_allclose(found, exported.expected(folder, facts, clips), atol=1e-3)


def test_several_clips_at_once_are_each_as_they_are_alone(written, clips):
    path = written[0] / "model.onnx"
    some = [clip for clip in clips if len(clip) == len(clips[4])]
    assert len(some) > 1
    waves = np.concatenate([onnxfile.waveform(clip) for clip in some])
    said, embedding = onnxfile.session(path).run(
        ["probabilities", "embedding"], {"waveform": waves}
    )
    np.testing.assert_allclose(said, onnxfile.probabilities(path, some), atol=1e-5)
    assert embedding.shape == (len(some), 64)


def test_the_file_states_its_classes_its_rate_and_its_licence(written):
    told = onnxfile.session(written[0] / "model.onnx").get_modelmeta().custom_metadata_map
    assert json.loads(told["classes"]) == exported.CLASSES
    assert (told["sample_rate"], told["license"]) == ("16000", "Apache-2.0")


def test_it_has_plain_operators_and_sizes_with_names(written):
    model = onnx.load(written[0] / "model.onnx")
    assert {node.domain for node in model.graph.node} <= EVERYWHERE
    assert max(one.version for one in model.opset_import) <= 20
    assert not {"STFT", "DFT", "If", "Loop"} & {node.op_type for node in model.graph.node}
    (source,) = model.graph.input
    assert [axis.dim_param for axis in source.type.tensor_type.shape.dim] == ["batch", "samples"]


def test_nothing_in_a_file_tells_of_the_machine_that_wrote_it(written):
    assert (
        str(Path(exporting.__file__).parents[2]).encode()
        not in (written[0] / "model.onnx").read_bytes()
    )


def test_the_8_bit_variant_is_smaller_and_agrees(written, clips):
    folder, facts = written
    small = folder / "model.int8.onnx"
    assert small.stat().st_size < 0.7 * (folder / "model.onnx").stat().st_size
    labels = exported.expected(folder, facts, clips).argmax(1)
    assert exporting.accuracy(folder / "model.onnx", clips, labels) == 1.0
    assert exporting.accuracy(small, clips, labels) >= 0.8
    assert onnxfile.session(small).get_modelmeta().custom_metadata_map["license"] == "Apache-2.0"


def test_an_exported_file_is_a_teacher_of_another_run(written, clips):
    path = written[0] / "model.onnx"
    outside = teachers.read(f"onnx:{path}")
    assert (outside.facts.sample_rate, outside.facts.output) == (exported.RATE, "embedding")
    teacher = teachers.load(outside.folder, outside.facts, torch.device("cpu"))
    wave = clips[4]
    found = onnxfile.session(path).run(["embedding"], {"waveform": onnxfile.waveform(wave)})[0]
    np.testing.assert_allclose(teacher.embed([wave]), found, rtol=1e-4, atol=1e-4)


def test_a_program_of_torch_says_what_the_scorer_says_without_this_package(tmp_path, clips):
    facts = exported.linear(tmp_path, "audio_ntt", num_crops=5, pooling="max")
    path, waves, said = (tmp_path / name for name in ("model.pt2", "waves.npz", "said.npz"))
    exporting.write(Folder.of(tmp_path), facts, exported.RATE, path, "torch", license="MIT")
    np.savez(waves, *[onnxfile.waveform(clip) for clip in clips])
    program = (
        "import json, sys, numpy as np, torch\n"
        f"extra = {{{METADATA_FILE!r}: ''}}\n"
        "module = torch.export.load(sys.argv[1], extra_files=extra).module()\n"
        "told = json.loads(next(iter(extra.values())))\n"
        "assert told['license'] == 'MIT' and told['sample_rate'] == '16000', told\n"
        "waves = np.load(sys.argv[2]).values()\n"
        "said = [module(torch.from_numpy(one))['probabilities'] for one in waves]\n"
        "np.savez(sys.argv[3], torch.cat(said).numpy())\n"
        "assert 'unfused' not in sys.modules\n"
    )
    assert str(Path(exporting.__file__).parents[2]).encode() not in path.read_bytes()
    subprocess.run([sys.executable, "-c", program, path, waves, said], check=True, cwd=tmp_path)
    found = np.load(said)["arr_0"]
    np.testing.assert_allclose(found, exported.expected(tmp_path, facts, clips), atol=1e-3)


def test_the_floor_is_a_file_too(tmp_path, clips):
    facts = exported.floor(tmp_path, clips)
    path = tmp_path / "floor.onnx"
    told = exporting.write(Folder.of(tmp_path), facts, exported.RATE, path, "onnx")
    assert (told.kind, told.classes) == ("floor", exported.CLASSES)
    found = onnxfile.probabilities(path, clips)
    np.testing.assert_allclose(found, exported.expected(tmp_path, facts, clips), atol=1e-3)


def test_a_pool_of_teachers_is_a_file_too(tmp_path, clips):
    facts = exported.pool(tmp_path, clips)
    path = tmp_path / "pool.onnx"
    exporting.write(Folder.of(tmp_path), facts, exported.RATE, path, "onnx")
    found = onnxfile.probabilities(path, clips)
    np.testing.assert_allclose(found, exported.expected(tmp_path, facts, clips), atol=1e-3)
