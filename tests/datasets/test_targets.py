"""The truths of the planar targets agree with closed forms and with their own draws."""

import jax
import numpy as np
import pytest
from scipy.special import ndtr

from numpyro_diffusion.datasets import planar, targets
from numpyro_diffusion.diagnose import metrics


def test_the_truths_of_the_paper():
    product, mixture = targets.target("product"), targets.target("mixture")
    assert product.mean_log_prob == pytest.approx(3.488, abs=5e-4)
    assert product.log_evidence == pytest.approx(-0.4709, abs=5e-5)
    assert mixture.mean_log_prob == pytest.approx(2.383, abs=5e-4)
    assert mixture.log_evidence == 0


def test_the_product_has_the_evidence_of_its_closed_form():
    """A Gaussian's mass in the bar is a product of differences of normal distribution functions."""
    half = np.array(planar.BOXES["bar"])
    mass = np.prod(
        ndtr((half - planar.MODES["ring"]) / planar.STD) - ndtr((-half - planar.MODES["ring"]) / planar.STD), 1
    )
    assert targets.target("product").log_evidence == pytest.approx(np.log(mass.mean() / np.prod(2 * half)), abs=1e-5)


@pytest.mark.parametrize("name", targets.NAMES)
def test_a_targets_draws_agree_with_its_figures(name):
    target, n = targets.target(name), 20_000
    x = target.sample(n, seed=3)
    values = target.log_prob(x)
    # The floor costs up to 1 % of the density.
    assert abs(values.mean() - target.mean_log_prob) < 5 * values.std() / np.sqrt(n) + 0.01
    assert np.mean(target.is_outside(x)) <= 1e-3
    if len(target.modes):
        k = len(target.modes)
        assert metrics.mode_weight_tv(x, target.modes, target.weights) < 5 * k * 0.5 / np.sqrt(n)
        assert metrics.mode_covariances(x, target.modes) == pytest.approx(target.covariances, abs=1e-4)


@pytest.mark.parametrize("name", targets.NAMES)
def test_log_densities_integrate_to_one_and_stay_finite(name):
    target, points = targets.target(name), np.linspace(-1.1, 1.1, 1101)
    grid = np.stack(np.meshgrid(points, points), -1).reshape(-1, 2)
    mass = np.exp(target.log_prob(grid)).sum() * (points[1] - points[0]) ** 2
    # The hard walls are up to half a cell off the grid.
    assert mass == pytest.approx(1, abs=0.02)
    assert np.all(np.isfinite(target.log_prob(np.array([[3.0, -4.0], [0.0, 0.0]]))))


@pytest.mark.parametrize("name", targets.NAMES)
def test_the_oracles_composition_is_the_target(name):
    target = targets.target(name)
    density, x = target.density(planar.exact), target.sample(50, seed=1)
    value = np.asarray(jax.vmap(lambda z: density.log_prob(z))(x)) - target.log_evidence
    assert value == pytest.approx(target.log_prob(x), abs=0.02)


def test_the_noise_floor_and_a_bad_sampler():
    target = targets.target("product")
    good, bad = (metrics.report(x, target) for x in (target.sample(1000, 5), planar_ring(1000)))
    assert set(good) == set(bad)
    for distance in ("log_mmd2", "sliced_w2", "fraction_outside", "mode_variance_error", "mode_std_error"):
        assert good[distance] < bad[distance]
    assert good["log_likelihood"] > bad["log_likelihood"] + 1
    lost = metrics.report(np.concatenate([target.sample(500, 5), np.full((500, 2), np.nan)]), target)
    assert lost["non_finite"] == 0.5 and np.isfinite(lost["log_mmd2"])


def test_the_hole_is_seen():
    assert targets.hole_fraction(np.array([[0.0, 0.0], [0.5, 0.5]])) == 0.5


def planar_ring(n):
    return np.asarray(planar.sampler("ring")(jax.random.key(0), n))
