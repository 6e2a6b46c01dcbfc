"""Conditions of any shape and type: given, composed and guided, in one batched call of the network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import numpyro_diffusion as nd
from numpyro_diffusion.errors import ParameterError, ShapeError

SCHEDULE = nd.VariancePreserving.cosine()
X = jax.random.normal(jax.random.key(0), (3, 2))
TABLE = jnp.asarray(np.random.default_rng(0).normal(size=(5, 2)), dtype=float)


def by_class(table, x, t, c):
    """Class numbers; 4 stands for none."""
    return table[c] * jnp.arcsinh(x)


def by_text(weights, x, t, c):
    """A sequence of embeddings [3, 4]."""
    return weights * x + jnp.tanh(c @ jnp.arange(4.0) @ jnp.arange(3.0))


def classes(**options):
    options = {"conditions": 4, "name": "p"} | options
    return nd.from_noise_prediction(by_class, (2,), SCHEDULE, parameters=TABLE, **options)


def texts(conditions=None, **options):
    conditions = np.zeros((3, 4), np.float32) if conditions is None else conditions
    return nd.from_noise_prediction(
        by_text, (2,), SCHEDULE, parameters=jnp.ones(2), conditions=conditions, name="q", **options
    )


@jax.jit
def score(density):
    return density.score(X, 0.4)


@pytest.mark.parametrize("condition", [3, np.int64(3), jnp.uint8(3), np.array(3)])
def test_class_numbers(condition):
    given = classes().given(condition)
    assert given.condition.dtype == jnp.int32 and repr(given) == "p|3"
    np.testing.assert_allclose(score(given), score(classes(conditions=3)), rtol=1e-6)


def test_none_is_the_null():
    density = classes()
    assert density.given(None) is density
    np.testing.assert_allclose(score(density), score(density.given(4)), rtol=1e-6)


def test_guided_and_composed_in_one_call():
    density = classes()
    p = {c: score(density.given(c)) for c in range(5)}
    guided = nd.classifier_free_guided(density, 1, 3.0)
    assert repr(guided) == "p|1 ** 3 / p ** 2"
    np.testing.assert_allclose(score(guided), 3 * p[1] - 2 * p[4], rtol=1e-4, atol=1e-5)
    composed = nd.compose_conditions(density, [0, 2, 3], weights=[1.0, 2.0, 0.5])
    np.testing.assert_allclose(score(composed), p[0] + 2 * p[2] + 0.5 * p[3] - 2.5 * p[4], rtol=1e-4, atol=1e-5)
    text = str(jax.make_jaxpr(lambda d: d.log_density(X[0], 0.4))(composed))
    assert text.count("= asinh ") == 1


def test_arrays_as_conditions():
    density = texts()
    a, b = np.random.default_rng(1).normal(size=(2, 3, 4))
    composed = nd.compose_conditions(density, np.stack([a, b]))
    expected = score(density.given(a)) + score(density.given(b)) - score(density)
    np.testing.assert_allclose(score(composed), expected, rtol=1e-4, atol=1e-5)
    assert len(repr(composed)) < 300
    batched = nd.from_noise_prediction(
        lambda x, t, c: jax.vmap(by_text, (None, 0, 0, 0))(jnp.ones(2), x, t, c), (2,), SCHEDULE,
        conditions=np.zeros((3, 4)), batched=True,
    )  # fmt: skip
    np.testing.assert_allclose(score(nd.compose_conditions(batched, [a, b])), score(composed), rtol=1e-5)


def test_traced_conditions():
    density = classes()
    traced = jax.jit(lambda c: density.given(c).score(X, 0.4))(jnp.int32(2))
    np.testing.assert_allclose(traced, score(density.given(2)), rtol=1e-6)
    composed = jax.jit(lambda c: nd.compose_conditions(density, c).score(X, 0.4))(jnp.array([1, 2]))
    np.testing.assert_allclose(composed, score(nd.compose_conditions(density, [1, 2])), rtol=1e-5)


def test_without_a_null_given_works():
    density = classes(conditions=jax.ShapeDtypeStruct((), jnp.int32))
    np.testing.assert_allclose(score(density.given(1)), score(classes().given(1)), rtol=1e-6)
    both = density.given(1) * density.given(2)
    np.testing.assert_allclose(score(both), score(density.given(1)) + score(density.given(2)), rtol=1e-5, atol=1e-6)
    for null in (
        lambda: density.given(None), lambda: score(density), lambda: nd.compose_conditions(density, [1, 2]),
        lambda: nd.classifier_free_guided(density, 1, 2.0),
    ):  # fmt: skip
        with pytest.raises(ParameterError, match="no condition that stands for none.*conditions=array"):
            null()


@pytest.mark.parametrize(("of", "condition", "error", "words"), [
    (classes, [1, 2], ShapeError, r"shape \(\); got \(2,\)"),
    (classes, 1.5, ParameterError, r"one of the whole numbers; got 1.5"),
    (classes, "one", ParameterError, "whole numbers.*got 'one'"),
    (texts, "a cube", ParameterError, r"an array \[3, 4\].*'a cube'. Give texts as the network reads"),
    (texts, np.zeros((4, 3)), ShapeError, r"shape \(3, 4\); got \(4, 3\)"),
    (texts, np.full((3, 4), np.nan), ParameterError, "finite"),
    (lambda: nd.from_noise_prediction(lambda x, t: x, (2,), SCHEDULE), 1, ShapeError, "takes no conditions.*nd.from_"),
])  # fmt: skip
def test_refused(of, condition, error, words):
    with pytest.raises(error, match=words):
        of().given(condition)


def test_refused_compositions():
    with pytest.raises(ShapeError, match=r"shape \[c\]; got \(\)"):
        nd.compose_conditions(classes(), 3)
    with pytest.raises(ShapeError, match=r"\(3, 4\); got \(2,\)|3 axes|4 axes"):
        nd.compose_conditions(texts(), np.zeros((2, 2)))
