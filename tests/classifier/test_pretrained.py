"""Classifiers that ship with the package: what their cards say, and that they judge."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from numpyro_diffusion.classifier import predict, pretrained_classifier
from numpyro_diffusion.datasets import coloured_digits
from numpyro_diffusion.disk.densities import PRETRAINED
from numpyro_diffusion.errors import UnknownNameError

MNIST = Path(__file__).parents[2].parent / "shared" / "data" / "mnist_0123.npz"


def test_the_judge_of_coloured_digits_is_small_and_says_how_good_it_is():
    folder = PRETRAINED / "classifiers"
    card = json.loads((folder / "coloured_digits_16.json").read_text(encoding="utf-8"))
    figures = card["figures"]
    assert figures["held_out_accuracy"] >= 0.99 and figures["held_out_accuracy_without_noise"] >= 0.99
    assert len((folder / "coloured_digits_16.safetensors").read_bytes()) <= 150_000
    judge = pretrained_classifier("coloured_digits_16")
    assert judge.config.num_outputs == len(coloured_digits.CELLS) and judge.name == card["name"]


@pytest.mark.skipif(not MNIST.exists(), reason="needs the real digits")
def test_the_judge_of_coloured_digits_judges_held_out_scans():
    with np.load(MNIST) as held:
        digits = held["test_images"], held["test_labels"]
    draw = coloured_digits.labelled(coloured_digits.CELLS, digits=digits, split="all")
    x, cell = draw(jax.random.key(0), 512)
    found = np.asarray(predict(pretrained_classifier("coloured_digits_16"), x)).argmax(1)
    # Five standard deviations below what the card says.
    assert np.mean(found == cell) > 0.997 - 5 * np.sqrt(0.997 * 0.003 / 512)


@pytest.mark.parametrize("name", ["cubes", "", None, ["cubes_16"], "../ring"])
def test_names_that_are_none(name):
    with pytest.raises(UnknownNameError, match="coloured_digits_16, cubes_16, cubes_32"):
        pretrained_classifier(name)
