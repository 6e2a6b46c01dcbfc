"""Functions of one draw: what they cannot be asked is told, and what they make of some draws; shapes of tails."""

import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_diffusion.diagnose.by_draw import by_draw
from numpyro_diffusion.diagnose.expectations import mean_of, particles_of
from numpyro_diffusion.errors import ArgumentTypeError, DiagnosticWarning, ParameterError, ShapeError

DRAWS = {"x": jnp.linspace(-1.0, 1.0, 40).reshape(20, 2), "scale": jnp.linspace(0.0, 1.9, 20)}
ALL = np.ones(20, bool)
REFUSED = {
    "a name": ("x", ArgumentTypeError, r"must be a function of one draw; got 'x'.*draw\['x'\]"),
    "no site": (lambda draw: draw["y"], ParameterError, "asks for 'y', which no draw has. A draw has: x, scale"),
    "NumPy": (lambda draw: np.sin(draw["x"]), ArgumentTypeError, "must compute by JAX.*jnp.where"),
    "a mask": (lambda draw: draw["x"][draw["x"] > 0].sum(), ArgumentTypeError, "must compute by JAX.*jnp.where"),
    "an index": (lambda draw: [0.0, 1.0][draw["x"].argmax()], ArgumentTypeError, "must compute by JAX.*jnp.where"),
    "a third of two": (lambda draw: draw["x"][2], ShapeError, "what is not there: index 2 .* with size 2. Axes"),
    "nothing": (lambda draw: None, ArgumentTypeError, "must return numbers of one draw; got None"),
    "an if": (lambda draw: 1.0 if draw["x"][0] > 0 else 0.0, ArgumentTypeError, "must compute by JAX.*jnp.where"),
}


@pytest.mark.parametrize(("fn", "error", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_function_of_a_draw_is_refused(fn, error, words):
    with pytest.raises(error, match=words):
        by_draw(fn, DRAWS, ALL)


def test_values_that_are_not_finite_are_told_where_they_count():
    log = lambda draw: {"log": jnp.log(draw["scale"]), "x": draw["x"]}
    with pytest.warns(DiagnosticWarning, match="fn is not finite at 1 of 20 draws"):
        values = by_draw(log, DRAWS, ALL)
    assert np.isneginf(values["log"][0]) and values["x"].shape == (20, 2)
    by_draw(log, DRAWS, np.arange(20) > 0)


def test_an_indicator_of_equal_weights_has_no_tail_to_speak_of():
    x = np.random.default_rng(0).normal(size=400)
    founder = np.random.default_rng(1).integers(400, size=400)
    particles = particles_of(x, np.zeros(400), founder)
    assert np.isnan(mean_of((x > 0.5).astype(float), particles).pareto_k)
    assert np.isfinite(mean_of(x, particles).pareto_k)
    heavy = np.where(np.arange(400) < 1, 1e6, np.abs(x))
    assert mean_of(heavy, particles_of(x, np.zeros(400))).pareto_k > 0.7


def test_a_clamped_index_elsewhere_stays_as_jax_has_it():
    by_draw(lambda draw: draw["x"][1], DRAWS, ALL)
    assert jnp.arange(2.0)[jnp.asarray(5)] == jnp.arange(2.0)[5] == 1.0
