"""The tapestry that the command line draws."""

import numpy as np
import pytest
from command import fails, invoke

import numpyro_diffusion as nd
from numpyro_diffusion.cli import tapestries
from numpyro_diffusion.density.density import Seen


def test_every_pixel_has_exponents_of_sum_one_and_captions_count_fully():
    places = np.array([[0.5, 0.5], [0.2, 0.3], [0.7, 0.7], [0.3, 0.8]])
    canvas = tapestries.woven(nd.load_pretrained("cubes_16"), places, 2)
    assert canvas.event_shape == (32, 32, 3) and len(canvas.models) == 1
    assert len(canvas.conditions[0]) == 16 + 4
    total = sum(float(a) * leaf.view.shares() for leaf, a in canvas.terms if isinstance(leaf, Seen))
    np.testing.assert_allclose(total, 1.0, rtol=1e-5)
    # The likelihood of a place: what stands to p(x | y) and is taken from p(x).
    assert sorted(np.round(np.asarray(canvas.coefficients), 6)) == [-0.75] * 4 + [0.25] * 12 + [1.0] * 4


def test_windows_are_judged_by_what_they_were_asked_for():
    grey = np.zeros((1, 32, 32, 3), np.float32)
    assert tapestries.share_shown(grey, np.full((4, 2), 0.5), 2) == 0.0


@pytest.mark.slow
def test_a_tapestry_is_drawn_and_judged(tmp_path, monkeypatch):
    monkeypatch.setattr(tapestries, "LEVELS", 3)
    options = ["--output", tmp_path / "tapestry.png", "--side", 1, "--images", 1]
    result = invoke("tapestry", *options)
    assert result.exit_code == 0, result.output
    said = [line.partition(":") for line in result.stdout.splitlines()]
    assert [name for name, *_ in said[:3]] == ["reverse", "verdict before the run", "HMC"]
    assert "of 1 windows right" in said[0][2] and "of 1 windows right" in said[2][2]
    assert (tmp_path / "tapestry.png").read_bytes().startswith(b"\x89PNG")
    assert "exists" in fails("tapestry", *options)
