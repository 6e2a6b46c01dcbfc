"""Networks of every make, functions, flax nnx and linen, equinox: in evaluation mode, read when they are needed."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adapters.closed_form import half_precision
from counting import compilations
from flax import nnx

import numpyro_diffusion as nd
from numpyro_diffusion.program import fingerprint

SCHEDULE = nd.VariancePreserving.cosine()
X = jax.random.normal(jax.random.key(0), (3, 2))


class Net(nnx.Module):
    """Takes a point or a batch; dropout and batch norm differ between training and evaluation."""

    def __init__(self, seed=0):
        rngs = nnx.Rngs(seed)
        self.first = nnx.Linear(2, 8, rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.last = nnx.Linear(8, 2, rngs=rngs)

    def __call__(self, x, t):
        return self.last(self.dropout(jnp.tanh(self.norm(self.first(x))))) + t[..., None]


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x, t, train: bool):
        h = nn.BatchNorm(use_running_average=not train)(nn.Dense(8)(x))
        return nn.Dense(2)(nn.Dropout(0.5, deterministic=not train)(jnp.tanh(h))) + t[..., None]


class GroupNormed(nnx.Module):
    """One point, taken for a batch of rows, is no error: it is normalised by row."""

    def __init__(self):
        self.norm = nnx.GroupNorm(4, num_groups=2, rngs=nnx.Rngs(0))

    def __call__(self, x, t):
        return self.norm(x)


@jax.jit
def noise(density, x=X):
    """What the network predicts of some points at one ratio."""
    return jax.vmap(lambda y: density.predicted_noise(y, 1.0))(x)


def told():
    """x in the network's units and what it is told at that ratio."""
    t = SCHEDULE.time(1.0)
    return SCHEDULE.alpha(t) * X, jnp.full(len(X), t)


def test_nnx_is_in_evaluation_mode_on_a_copy():
    net = Net()
    net.norm.mean[...] = jnp.arange(8.0)
    before = fingerprint(nnx.state(net))
    density = nd.from_noise_prediction(net, (2,), SCHEDULE)
    found = noise(density)
    assert not net.dropout.deterministic and not net.norm.use_running_average
    assert fingerprint(nnx.state(net)) == before
    net.eval()
    np.testing.assert_allclose(found, net(*told()), rtol=1e-5)


def test_nnx_that_is_trained_further_shows_and_compiles_nothing():
    net = Net()
    density = nd.from_noise_prediction(net, (2,), SCHEDULE)
    before = noise(density)
    net.last.kernel[...] = 2 * net.last.kernel[...]
    with compilations() as found:
        after = noise(density)
    assert found == [] and not np.allclose(before, after)
    with compilations() as found:
        other = noise(nd.from_noise_prediction(Net(seed=1), (2,), SCHEDULE, name="other"))
    assert len(found) == 0 and not np.allclose(other, after)


def test_nnx_takes_weights_as_parameters():
    net, other = Net(), Net(seed=1)
    state = nnx.state(other, nnx.Not(nnx.RngState))
    found = noise(nd.from_noise_prediction(net, (2,), SCHEDULE, parameters=state))
    np.testing.assert_allclose(found, noise(nd.from_noise_prediction(other, (2,), SCHEDULE)), rtol=1e-5)


def test_linen_is_in_evaluation_mode():
    variables = Linen().init(jax.random.key(0), X, jnp.zeros(3), train=False)
    variables = jax.tree.map(lambda a: a + 0.1, variables)
    found = noise(nd.from_noise_prediction(Linen(), (2,), SCHEDULE, parameters=variables))
    np.testing.assert_allclose(found, Linen().apply(variables, *told(), train=False), rtol=1e-5)


def test_equinox_is_in_inference_mode():
    eqx = pytest.importorskip("equinox")

    class Equinox(eqx.Module):
        linear: eqx.nn.Linear
        dropout: eqx.nn.Dropout

        def __call__(self, x, t):
            return self.dropout(self.linear(x)) + t

    module = Equinox(eqx.nn.Linear(2, 2, key=jax.random.key(0)), eqx.nn.Dropout(0.5))
    density = nd.from_noise_prediction(module, (2,), SCHEDULE)
    x, t = told()
    np.testing.assert_allclose(noise(density), x @ module.linear.weight.T + module.linear.bias + t[:, None], rtol=1e-5)
    assert all(isinstance(a, jax.Array) for a in jax.tree.leaves(density))
    doubled = jax.tree.map(lambda a: 2 * a if eqx.is_array(a) else a, module)
    with compilations() as found:
        noise(nd.from_noise_prediction(doubled, (2,), SCHEDULE))
    assert found == []


@pytest.mark.parametrize("make", [Net, lambda: jax.jit(lambda x, t: x + t[:, None])], ids=["nnx", "jitted"])
def test_batches(make):
    fn = make()
    found = noise(nd.from_noise_prediction(fn, (2,), SCHEDULE, batched=True))
    fn.eval() if isinstance(fn, nnx.Module) else None
    np.testing.assert_allclose(found, fn(*told()), rtol=1e-5)


def test_modules_for_batches_are_found_out_where_one_point_is_no_error():
    with pytest.raises(ValueError, match="made for batches. Give batched=True"):
        nd.from_noise_prediction(GroupNormed(), (3, 3, 4), SCHEDULE)
    density = nd.from_noise_prediction(GroupNormed(), (3, 3, 4), SCHEDULE, batched=True)
    x = jax.random.normal(jax.random.key(0), (5, 3, 3, 4))
    np.testing.assert_allclose(
        noise(density, x), GroupNormed()(x * SCHEDULE.alpha(SCHEDULE.time(1.0)), 0), rtol=1e-3, atol=1e-4
    )
    nd.from_noise_prediction(lambda x, t: GroupNormed()(x, t), (3, 3, 4), SCHEDULE)


def test_odd_dtypes():
    half = lambda w, x, t: (x.astype(jnp.bfloat16) * w["scale"]) * (1 + w["whole"])
    weights = {"scale": half_precision()(2.0), "whole": 3}
    density = nd.from_noise_prediction(half, (2,), SCHEDULE, parameters=weights)
    assert noise(density).dtype == jnp.float32
    np.testing.assert_allclose(noise(density), 8 * told()[0], rtol=2e-2)
    assert density.score(np.array([1, 2]), 0.5).shape == (2,)


def test_made_inside_of_jit():
    def loss(scale):
        fn = lambda weights, x, t: weights * x
        density = nd.from_noise_prediction(fn, (2,), SCHEDULE, parameters=scale)
        return jnp.sum(jax.vmap(lambda y: density.predicted_noise(y, 1.0))(X))

    np.testing.assert_allclose(jax.jit(jax.grad(loss))(2.0), np.sum(told()[0]), rtol=1e-4)
