"""The command `check`: a report, a picture of it, and what it refuses."""

from functools import partial

import command
import jax
import numpy as np
import pytest

from numpyro_diffusion.datasets import planar

invoke, fails = (partial(call, "check") for call in (command.invoke, command.fails))


@pytest.fixture(scope="module")
def points(tmp_path_factory):
    path = tmp_path_factory.mktemp("check") / "points.npy"
    np.save(path, planar.exact("ring").sample(jax.random.key(0), 200))
    return path


def test_a_report_and_its_picture(points, tmp_path):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "report.png"
    result = invoke("--model", "ring", "--data", points, "--output", picture, "--num-points", 32)
    assert result.exit_code == 0, result.output
    assert "ring on data with noise, 32 points a level" in result.stdout and "findings  none" in result.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")
    again = invoke("--model", "ring", "--data", points, "--num-points", 32)
    assert again.stdout in result.stdout
    assert "exists already" in fails("--model", "ring", "--data", points, "--output", picture)


def test_bad_input_is_one_line(points, tmp_path):
    assert "no pretrained density of that name" in fails("--model", "rings", "--data", points)
    assert "must have shape [n, *(64,)]" in fails("--model", "digits", "--data", points)
    (tmp_path / "points").write_bytes(points.read_bytes())
    assert "name one file" in fails("--model", "ring", "--data", tmp_path / "points", "--output", tmp_path / "points")
    for name in ("report.pdf", "report.jpgx"):
        result = invoke("--model", "ring", "--data", points, "--output", tmp_path / name)
        assert result.exit_code == 2 and "must end in .png" in result.stderr and not (tmp_path / name).exists()
    np.save(tmp_path / "few.npy", np.zeros((3, 2)))
    assert "at least 16 points" in fails("--model", "ring", "--data", tmp_path / "few.npy")
