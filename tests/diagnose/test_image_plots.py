"""Grids of images: every image in its place, in its colours, and nothing lost in silence."""

import numpy as np
import pytest
from refusals import assert_refused, refusals

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

import numpyro_diffusion as nd  # noqa: E402
from numpyro_diffusion import plots  # noqa: E402
from numpyro_diffusion.errors import ParameterError, ShapeError  # noqa: E402


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def drawn(images, **settings):
    return np.asarray(plots.image_grid(images, **settings).images[0].get_array())


@pytest.mark.parametrize("channels", [(), (1,), (3,)])
def test_every_image_is_in_its_place(channels):
    x = np.random.default_rng(0).uniform(-1, 1, (5, 4, 3, *channels))
    tiles = drawn(x, columns=2)
    assert tiles.shape == (3 * 5 - 1, 2 * 4 - 1, 3)
    for i, image in enumerate(x):
        row, column = 5 * (i // 2), 4 * (i % 2)
        expected = (image.reshape(4, 3, -1) + 1) / 2 * np.ones(3)
        np.testing.assert_allclose(tiles[row : row + 4, column : column + 3], expected)
    assert np.all(tiles[4] == 1) and np.all(tiles[:, 3] == 1) and np.all(tiles[10:, 4:] == 1)


def test_values_beyond_the_limits_are_drawn_as_these_and_lost_ones_orange():
    x = np.zeros((1, 1, 4))
    x[0, 0] = [-9, 300, np.nan, np.inf]
    tiles = drawn(x, limits=(0, 255))
    np.testing.assert_allclose(tiles[0, :2], [[0, 0, 0], [1, 1, 1]])
    np.testing.assert_allclose(tiles[0, 2], np.array([213, 94, 0]) / 255)
    # Infinity is as bright as can be, and lost all the same.
    np.testing.assert_allclose(tiles[0, 3], tiles[0, 2])


def test_whole_numbers_on_given_axes_no_more_than_asked_for():
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    images = np.arange(100)[:, None, None] * np.ones((1, 2, 2), int)
    assert plots.image_grid(images, limits=(0, 99), max_images=4, ax=ax, title="some") is ax
    tiles = np.asarray(ax.images[0].get_array())
    np.testing.assert_allclose(tiles[::3, ::3, 0], np.array([[0, 25], [50, 75]]) / 99)
    assert ax.get_title() == "some"


def test_of_a_run_draws_in_proportion_to_the_weights():
    run = nd.AnnealedRun(
        samples=np.arange(4.0)[:, None, None] * np.ones((1, 2, 2)), log_weights=np.log([0.01, 0.5, 0.01, 0.48]),
        log_evidence=0.0, log_evidence_error=0.0, levels=np.array([1.0, 0.0]), stats={}, history=None,
        density=nd.exact.GaussianMixture(np.zeros((1, 4)), np.eye(4)[None]), kernel=nd.HMC(), is_weighted=True,
        num_steps=1, evaluations_per_chain=1,
    )  # fmt: skip
    tiles = drawn(run, limits=(0, 3))[::3, ::3, 0].ravel() * 3
    assert np.allclose(sorted(tiles), [1, 1, 3, 3])


def test_a_posterior_of_an_image_is_drawn_by_pixel():
    x = np.random.default_rng(0).uniform(-1, 1, (41, 4, 3, 3))
    truth = np.zeros((4, 3, 3))
    figure = plots.posterior_images(x, probability=0.5, references={"truth": truth}, title="a digit")
    panels = {ax.get_title(): np.asarray(ax.images[0].get_array()) for ax in figure.axes}
    assert list(panels) == ["truth", "mean", "low end, 50 %", "high end, 50 %", "width"]
    low, high = np.quantile(x, [0.25, 0.75], axis=0)
    for title, values in {"truth": truth, "mean": x.mean(0), "low end, 50 %": low, "high end, 50 %": high}.items():
        np.testing.assert_allclose(panels[title], (values + 1) / 2)
    np.testing.assert_allclose(panels["width"], (high - low) / 2)
    assert figure.get_suptitle() == "a digit"


@refusals({
    "a truth of another shape": (
        lambda: plots.posterior_images(np.zeros((3, 2, 2)), references={"it": np.zeros(4)}), ShapeError, "it must",
    ),
    "a probability of one": (
        lambda: plots.posterior_images(np.zeros((3, 2, 2)), probability=1), ParameterError, "probability",
    ),
    "flat images": (lambda: plots.image_grid(np.zeros((3, 64))), ShapeError, r"got float64 \(3, 64\).*x.reshape"),
    "two channels": (lambda: plots.image_grid(np.zeros((3, 8, 8, 2))), ShapeError, "1 or 3"),
    "none": (lambda: plots.image_grid(np.zeros((0, 8, 8))), ShapeError, "N >= 1"),
    "words": (lambda: plots.image_grid("images"), ShapeError, "'images'"),
    "complex numbers": (lambda: plots.image_grid(np.zeros((1, 2, 2), complex)), ShapeError, "complex128"),
    "limits the wrong way": (
        lambda: plots.image_grid(np.zeros((1, 2, 2)), limits=(1, -1)), ParameterError, "in order",
    ),
    "no columns": (lambda: plots.image_grid(np.zeros((1, 2, 2)), columns=0), ParameterError, "columns"),
})  # fmt: skip
def test_refused(call, error, words):
    assert_refused(call, error, words)
