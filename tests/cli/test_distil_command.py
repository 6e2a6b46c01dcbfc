"""The command `distil`: from the file of a score model to that of an energy, and what it refuses."""

from functools import partial

import command
import numpy as np
import pytest
from densities import network

import numpyro_diffusion as nd
from numpyro_diffusion.disk import checkpoint
from numpyro_diffusion.distillation import teacher

TINY = ["--steps", "4", "--batch-size", "16"]


invoke, fails = (partial(call, "distil") for call in (command.invoke, command.fails))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """points.npy, a score model s.safetensors and an energy e.safetensors."""
    path = tmp_path_factory.mktemp("distil")
    np.save(path / "points.npy", np.random.default_rng(0).standard_normal((120, 2)))
    nd.save(network("score"), path / "s.safetensors")
    nd.save(network("l2"), path / "e.safetensors")
    return path


@pytest.mark.slow
def test_a_distilled_file_is_the_energy(folder, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(nd, "distillation_report", lambda key, *given: seen.append(given) or "a table")
    model, output = folder / "s.safetensors", tmp_path / "out.safetensors"
    for _ in range(2):
        result = invoke(
            "--model", model, "--data", folder / "points.npy", "--output", output, *TINY, "--report",
            "--checkpoint", tmp_path / "state", "--force",
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        assert "108 points" in result.stdout and result.stdout.endswith("a table\n")
    density = nd.load(output)
    assert repr(density) == "out" and isinstance(density, nd.EnergyDensity) and density.is_calibrated
    (_, config), (_, teacher, held_out) = checkpoint.read(output, kind="density"), seen[0]
    assert config["card"]["teacher"] == repr(teacher) == "score" and config["card"]["num_steps"] == 4
    points = {tuple(point) for point in np.load(folder / "points.npy")}
    assert held_out.shape == (12, 2) and {tuple(point) for point in held_out} < points


@pytest.mark.slow
def test_without_data_the_teacher_is_sampled(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(teacher, "NUM_DRAWN", 50)
    result = invoke("--model", folder / "s.safetensors", "--output", tmp_path / "out", *TINY)
    assert result.exit_code == 0 and "samples of its own" in result.stdout
    assert checkpoint.read(tmp_path / "out", kind="density")[1]["card"]["data"] == "samples of the teacher"


def test_refused(folder, tmp_path):
    model, data, output = folder / "s.safetensors", folder / "points.npy", tmp_path / "out.safetensors"
    assert "has a log density" in fails("--model", folder / "e.safetensors", "--output", output, *TINY)
    assert "there is no file" in fails("--model", tmp_path / "missing", "--output", output)
    assert "name one file" in fails("--model", model, "--output", model, "--force")
    (tmp_path / "points").write_bytes(data.read_bytes())
    both = ["--data", tmp_path / "points", "--output", tmp_path / "points"]
    assert "name one file" in fails("--model", model, *both, "--force")
    assert "--report needs --data, at least 100 points" in fails("--model", model, "--output", output, "--report")
    np.save(tmp_path / "wide.npy", np.ones((9, 3)) * np.arange(9.0)[:, None])
    found = fails("--model", model, "--data", tmp_path / "wide.npy", "--output", output, *TINY)
    assert "teacher's shape (2,); got (3,)" in found
    assert not output.exists()
