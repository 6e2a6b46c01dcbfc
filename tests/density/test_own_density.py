"""A density of a user's own class: as `nd.Density` shows how to write one, and without the decorator."""

import inspect
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from densities import gaussian, log_prob_of, network, unknown
from jax.scipy.stats import norm

import numpyro_diffusion as nd
from numpyro_diffusion.density.abstract import batch_log_prob, narrowest
from numpyro_diffusion.errors import ArgumentTypeError

X = np.array([0.3, -0.4])
SCHEDULE = nd.VariancePreserving.cosine(10.0)


def shown():
    """The class in the docstring of `nd.Density`."""
    _, _, example = inspect.getdoc(nd.Density).partition("    @numpyro_diffusion")
    names = {"nd": nd, "jnp": jnp, "norm": norm, "numpyro_diffusion": nd}
    exec(textwrap.dedent("    @numpyro_diffusion" + example), names)
    return names["Normal"]


def test_the_class_of_the_docstring_is_a_density():
    own = shown()(jnp.array([1.0, -1.0]), SCHEDULE, "n")
    expected = gaussian((1.0, -1.0), np.eye(2), schedule=SCHEDULE)
    for t in (0.0, 0.4):
        np.testing.assert_allclose(
            jax.jit(lambda d, t=t: d.log_prob(X, t))(own), log_prob_of(expected, X, t), rtol=1e-5
        )
    product = own * own.with_schedule(SCHEDULE) * expected
    assert repr(product).startswith("n ** 2 * ")  # a copy with the same fields is the same
    np.testing.assert_allclose(batch_log_prob(product, X[None], 0.4)[0], 3 * log_prob_of(expected, X, 0.4), rtol=1e-5)


@pytest.mark.parametrize("ask", [
    narrowest, lambda d: narrowest(d * gaussian()), lambda d: batch_log_prob(d, X[None], 0.4),
    lambda d: nd.calibration_report(d, levels=[0.5]), lambda d: nd.anneal(jax.random.key(0), d),
])  # fmt: skip
def test_a_class_that_is_no_pytree_is_refused(ask):
    with pytest.raises(ArgumentTypeError, match=r"are pytrees; got Unknown.*Decorate it with .*register"):
        ask(unknown())


def test_copies_that_share_their_fields_are_evaluated_in_one_call(network_calls):
    density = network(condition_size=2)
    schedule = nd.VariancePreserving.linear()
    copies = density.with_schedule(schedule), density.with_schedule(nd.VariancePreserving.linear())
    both = copies[0].given([1.0, 0.0]) * copies[1].given([0.0, 1.0])
    assert len(both.models) == 1 and len(both.leaves) == 2
    network_calls.clear()
    score = jax.jit(lambda d: d.score(X, 0.4))(both)
    assert len(network_calls) == 1
    np.testing.assert_allclose(score, sum(leaf.score(X, 0.4) for leaf in both.leaves), rtol=1e-4, atol=1e-4)
    other = density._replace(log_z=density.log_z + 1.0)
    assert len((density.given([1.0, 0.0]) * other.given([1.0, 0.0])).models) == 2
