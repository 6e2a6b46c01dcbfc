"""Teachers, data and settings that distillation refuses."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from densities import NETWORK, ScoreOf, gaussian, network
from refusals import assert_refused, refusals

import numpyro_diffusion as nd
from numpyro_diffusion.density.energy import zero_with_gradient
from numpyro_diffusion.distillation import teacher
from numpyro_diffusion.errors import ArgumentTypeError, ParameterError, ShapeError
from numpyro_diffusion.pytree import register

KEY = jax.random.key(0)
X = np.random.default_rng(0).standard_normal((50, 2))


def distil(model=None, data=X, **kwargs):
    return nd.distil(KEY, model or network("score"), data, **({"progress_bar": False} | kwargs))


class Sick(ScoreOf):
    """Has NaN where the noise is small."""

    def log_density(self, x, t):
        score = jax.grad(self.density.log_density)(x, t)
        return zero_with_gradient(x, jnp.where(self.schedule.noise_to_signal(t) < 0.05, jnp.nan, score))


register(("density",), ("schedule", "event_shape", "name", "floor"))(Sick)


def report(density=None, model=None, data=X):
    return nd.distillation_report(KEY, density or network("l2"), model or network("score"), data)


REFUSED = {
    "no density": (lambda: distil(lambda x, t: -x), ArgumentTypeError, r"nd.distil takes a density; got function"),
    "a log density": (
        lambda: distil(gaussian()), ArgumentTypeError, r"g has a log density, so there is nothing.*nd.recalibrate"),
    "a composition": (
        lambda: distil(network("score") ** 2), ArgumentTypeError, r"takes one model; got the composition.*factors"),
    "data of another shape": (
        lambda: distil(data=np.ones((9, 3)) * np.arange(9.0)[:, None]), ShapeError,
        r"teacher's shape \(2,\); got \(3,\)"),
    "data NaN": (lambda: distil(data=np.where(X > 2, np.nan, X)), ParameterError, r"data must be finite; got"),
    "integers": (lambda: distil(data=np.ones((5, 2), int)), ShapeError, r"floating point; got dtype int"),
    "conditions": (
        lambda: distil(conditions=np.ones((50, 1))), ShapeError, r"score takes no conditions; got .*\(50, 1\). Drop"),
    "conditions of another length": (
        lambda: distil(network("score", condition_size=2), conditions=np.ones((50, 3))), ShapeError,
        r"teacher's shape \[n, 2\]; got \(50, 3\)"),
    "a form": (lambda: distil(parameterisation="l3"), ParameterError, r"must be one of l2, dae.*got 'l3'"),
    "no noise": (lambda: distil(sigma_min=0.0), ParameterError, r"sigma_min < sigma_max; got 0.0.*Leave it out for"),
    "noise beyond the teacher's": (
        lambda: distil(sigma_max=1e4), ParameterError, r"within the teacher's.*0.01, 100.*got 0.01 and 1e\+04. Leave"),
    "noise below the teacher's": (lambda: distil(sigma_min=1e-3), ParameterError, r"within the teacher's.*got 0.001"),
    "no base": (lambda: distil(base=3), ArgumentTypeError, r"base must be a MixtureBase or .*RegressionBase; got 3"),
    "no flag": (
        lambda: distil(normalise="yes"), ParameterError,  # pyright: ignore
        r"normalise must be True or False; got 'yes'. None"),
    "a key": (lambda: nd.distil(0, network("score"), X), ParameterError, r"rng_key must be one JAX key"),
    "a report of a score": (lambda: report(network("score")), ArgumentTypeError, r"a trained energy first; got score"),
    "a report beside an energy": (lambda: report(model=network("l2")), ArgumentTypeError, r"with a score alone; l2"),
    "a report of other points": (lambda: report(data=X[:, :1]), ShapeError, r"got \(2,\), \(2,\) and data \(50, 1\)"),
    "a report of NaN": (lambda: report(data=X * np.nan), ParameterError, r"data must be finite; got 100"),
}  # fmt: skip


@refusals(REFUSED)
def test_refused(call, error, words):
    assert_refused(call, error, words)


@pytest.mark.slow
def test_levels_at_which_a_teacher_is_sick_are_named():
    sick = Sick(gaussian(), "sick")
    words = r"(?s)sick has NaN.*ratios 0.00\d+ \(32 of 32 points\), .*0.0294 \(32 of 32 points\). Give sigma_min="
    with pytest.raises(ParameterError, match=words):
        distil(sick)
    small = {"network": nd.NetworkConfig(**NETWORK), "training": nd.TrainingConfig(num_steps=4, batch_size=16)}
    assert distil(sick, sigma_min=0.06, normalise=False, **small).resolution == pytest.approx(0.06)


def test_samples_of_an_interrupted_run_are_no_data(monkeypatch):
    run = SimpleNamespace(is_complete=False, levels=np.array([1.0, 0.4]))
    monkeypatch.setattr(teacher, "anneal", lambda *args, **kwargs: run)
    with pytest.raises(ParameterError, match=r"still noise.*interrupted at t = 0.4. Run nd.distil anew, or give data"):
        distil(data=None)


def test_nothing_can_be_traced():
    with pytest.raises(nd.errors.TracedError):
        jax.jit(lambda x: distil(data=x))(X)
