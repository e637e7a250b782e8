"""Programs of torch as teachers, and files that would run code of their own."""

from __future__ import annotations

import json
import pickle
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from unfused import teachers
from unfused.config import ConfigError
from unfused.teachers.kinds.torch import is_arithmetic

WAVES = [(3000 * np.random.default_rng(n).standard_normal(n)).astype(np.int16) for n in (900, 7000)]


class Frames(nn.Module):
    """(B, S) to (B, 4, T)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv1d(1, 4, 400, 160)

    def forward(self, samples: Tensor) -> Tensor:
        return self.conv(samples[:, None]).relu()


class Two(Frames):
    """Frames beside something else, by name."""

    def forward(self, samples: Tensor) -> dict[str, Tensor]:
        frames = self.conv(samples[:, None]).relu()
        return {"embedding": frames, "logits": frames.mean(2)}


def exported(path: Path) -> Path:
    """As `torch.export.save` writes it, for any batch and length."""
    sizes = {0: torch.export.Dim("B"), 1: torch.export.Dim("S", min=720)}
    program = torch.export.export(Frames().eval(), (torch.zeros(2, 9000),), dynamic_shapes=[sizes])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program, path)
    return path


def scripted(path: Path, model: nn.Module) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(model.eval()).save(str(path))
    return path


def embed(path: Path) -> np.ndarray:
    found = teachers.read(f"torch:{path}")
    assert found.facts.output_axes == "BDT"
    return teachers.load(found.folder, found.facts, torch.device("cpu")).embed(WAVES)


def wanted() -> np.ndarray:
    with torch.inference_mode():
        found = [
            Frames()(torch.from_numpy(wave.astype(np.float32) / 32768)[None])[0] for wave in WAVES
        ]
    return torch.stack([torch.cat([f.mean(1), f.amax(1)]) for f in found]).numpy()


def test_a_scripted_module_embeds_as_the_module_does(tmp_path):
    path = scripted(tmp_path / "m.pt", Frames())
    np.testing.assert_allclose(embed(path), wanted(), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_an_exported_program_embeds_as_the_module_does(tmp_path):
    path = exported(tmp_path / "m.pt2")
    (tmp_path / "m.json").write_text('{"min_seconds": 0.05}')
    np.testing.assert_allclose(embed(path), wanted(), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_program_that_was_exported_for_one_length_is_given_windows_of_it(tmp_path):
    program = torch.export.export(Frames().eval(), (torch.zeros(1, 4000),))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program, tmp_path / "m.pt2")
    (tmp_path / "m.pt2.json").write_text('{"output_axes": "BDT"}')
    facts = teachers.read(f"torch:{tmp_path / 'm.pt2'}").facts
    assert (facts.window_seconds, facts.batch) == (0.25, 1)


def test_of_several_outputs_one_is_named(tmp_path):
    path = scripted(tmp_path / "m.pt", Two())
    with pytest.raises(ConfigError, match=r"gives embedding, logits; say which .* \"output\""):
        teachers.read(f"torch:{path}")
    (tmp_path / "m.pt.json").write_text('{"output": "embedding"}')
    np.testing.assert_allclose(embed(path), wanted(), rtol=1e-5, atol=1e-6)


class Trap:
    """Makes a file where it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self):
        return Path.touch, (self.place,)


def rewritten(path: Path, change) -> Path:
    """The archive with other bytes in its members."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in (members | change(members)).items():
            archive.writestr(name, data)
    return path


def json_changed(members, ending: str, change):
    (name,) = [name for name in members if name.endswith(ending)]
    return {name: change(members[name].decode()).encode()}


def config_of_pickles(members):
    def change(text):
        config = json.loads(text)
        config["config"]["conv.weight"]["use_pickle"] = True
        return json.dumps(config)

    return json_changed(members, "weights_config.json", change)


def opaque_constant(members):
    config = {"config": {"x": {"path_name": "opaque_obj_0", "use_pickle": False}}}
    return json_changed(members, "constants_config.json", lambda text: json.dumps(config))


def evil_size(members):
    """What sympy would evaluate."""

    def change(text):
        return text.replace("Symbol('s", "exec('1') or Symbol('s", 1)

    return json_changed(members, "model.json", change)


def evil_target(members):
    return json_changed(
        members,
        "model.json",
        lambda text: text.replace("torch.ops.aten.relu.default", "torch.load"),
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "match"),
    [
        (config_of_pickles, "has a weight that is pickled"),
        (opaque_constant, "has a pickled object"),
        (evil_size, "for a size, which is no formula"),
        (evil_target, "calls 'torch.load', which is no operator"),
    ],
)
def test_an_archive_that_would_run_code_is_refused(tmp_path, change, match):
    path = rewritten(exported(tmp_path / "m.pt2"), change)
    with pytest.raises(ConfigError, match=match):
        teachers.read(f"torch:{path}")


@pytest.mark.slow
def test_example_inputs_that_are_objects_are_refused_and_never_made(tmp_path):
    trap = tmp_path / "sprung"

    def change(members):
        (name,) = [name for name in members if name.endswith("sample_inputs/model.pt")]
        return {name: pickle.dumps(Trap(trap))}

    path = rewritten(exported(tmp_path / "m.pt2"), change)
    with pytest.raises(ConfigError, match=r"holds pickled objects .*save it with plain tensors"):
        teachers.read(f"torch:{path}")
    assert not trap.exists()


@pytest.mark.parametrize("whole", [True, False])
def test_a_checkpoint_is_no_program_and_is_never_unpickled(tmp_path, whole):
    trap, path = tmp_path / "sprung", tmp_path / "m.pt"
    torch.save({"model": Trap(trap)} if whole else Frames().state_dict(), path)
    with pytest.raises(ConfigError, match=r"holds pickled objects and no program; save weights"):
        teachers.read(f"torch:{path}")
    assert not trap.exists()


def test_a_file_that_is_no_archive_is_refused(tmp_path):
    (tmp_path / "m.pt").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    with pytest.raises(ConfigError, match=r"m\.pt is no program of torch"):
        teachers.read(f"torch:{tmp_path / 'm.pt'}")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "text", ["Symbol('s77', positive=True, integer=True)", "1 + ((s27 - 400) // 160)", "Max(1, s0)"]
)
def test_formulas_of_sizes_pass(text):
    assert is_arithmetic(text)


@pytest.mark.parametrize(
    "text",
    [
        "exec('x')",
        "Symbol('__import__(os)')",
        "().__class__",
        "S.func('x')",
        "(lambda: 1)()",
        "[x for x in s]",
        "open(s)",
        "s[0]",
        "import os",
    ],
)
def test_code_does_not_pass_for_a_formula(text):
    assert not is_arithmetic(text)
