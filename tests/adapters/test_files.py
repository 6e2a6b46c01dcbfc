"""Networks from elsewhere on disk: weights and settings come back, the function is asked for, nonsense is refused."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adapters.closed_form import BETAS, OTHER, half_precision
from flax import nnx

import numpyro_diffusion as nd
from numpyro_diffusion.disk import checkpoint
from numpyro_diffusion.errors import CheckpointError, ParameterError

SCHEDULE = nd.VariancePreserving.cosine()
TABLE = nd.NoiseSchedule.from_betas(BETAS)
X = jax.random.normal(jax.random.key(0), (4, 2))


class Net(nnx.Module):
    def __init__(self, seed=0, width=4):
        rngs = nnx.Rngs(seed)
        self.first, self.last = nnx.Linear(3, width, rngs=rngs), nnx.Linear(width, 2, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x, t):
        return self.last(self.dropout(jnp.tanh(self.first(jnp.append(x, t)))))


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x, t):
        return nn.Dense(2)(jnp.tanh(nn.Dense(4)(jnp.append(x, t))))


def by_parameters(weights, x, t):
    return weights["a"][0] @ x + weights["a"][1] * t + weights["shift"]


def captures(seed=0):
    """A function without parameters, as one closes over weights."""
    a, b = map(jnp.asarray, np.random.default_rng(seed).normal(size=(2, 2, 2)))
    return lambda x, t: jnp.tanh(a @ x) + b[0] * t


def linen_weights(seed=0):
    return Linen().init(jax.random.key(seed), jnp.zeros(2), 0.0)


def weights():
    return {"a": [np.eye(2, dtype=np.float32) + 0.5, (jnp.ones(2), None)[0]], "shift": half_precision()(0.25)}


def equinox(seed=0):
    eqx = pytest.importorskip("equinox")

    class Equinox(eqx.Module):
        linear: eqx.nn.Linear

        def __call__(self, x, t):
            return self.linear(jnp.append(x, t))

    return Equinox(eqx.nn.Linear(3, 2, key=jax.random.key(seed)))


#: (network that is saved with its parameters, the like with other weights that is given to load), as functions.
NETWORKS = {
    "nnx": (lambda: (Net(), None), lambda: Net(seed=1)),
    "linen": (lambda: (Linen(), linen_weights()), Linen),
    "equinox": (lambda: (equinox(), None), lambda: equinox(seed=1)),
    "parameters": (lambda: (by_parameters, weights()), lambda: by_parameters),
    "captured": (lambda: (captures(), None), lambda: captures(seed=1)),
}


@jax.jit
def score(density):
    return jax.vmap(lambda t: density.score(X, t))(jnp.array([0.1, 0.6]))


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize("kind", NETWORKS)
def test_comes_back(kind, tmp_path):
    of, like = NETWORKS[kind]
    fn, parameters = of()
    options = {"parameters": parameters, "data_scale": 1.5, "name": kind}
    density = nd.from_velocity(fn, (2,), TABLE, timesteps="fractional", **options).with_schedule(OTHER)
    nd.save(density, tmp_path / "a", card={"seed": 3})
    again = nd.load(tmp_path / "a", network=like())
    np.testing.assert_array_equal(score(again), score(density))
    assert (repr(again), again.schedule, again.origin, again.prediction) == (kind, OTHER, TABLE, "velocity")
    np.testing.assert_array_equal(again.moments.variance, density.moments.variance)
    assert checkpoint.read(tmp_path / "a")[1]["card"] == {"seed": 3}
    nd.save(again, tmp_path / "b")
    np.testing.assert_array_equal(score(nd.load(tmp_path / "b", network=like())), score(density))


@pytest.mark.parametrize("timesteps", ["integer", np.arange(1000) * 2, np.linspace(0, 1, 1000), lambda t: t * 7.0])
def test_timesteps_come_back(timesteps, tmp_path):
    fn = lambda x, t: x * jnp.sin(0.01 * t)
    density = nd.from_noise_prediction(fn, (2,), TABLE, timesteps=timesteps)
    nd.save(density, tmp_path / "a")
    again = nd.load(tmp_path / "a", network=fn)
    np.testing.assert_allclose(score(again), score(density), rtol=1e-3, atol=1e-5)


def test_batches_conditions_images_and_energies_come_back(tmp_path):
    fn = lambda w, x, t, c: 0.5 * jnp.sum(w * (x - c[:, None, None, None]) ** 2, axis=(1, 2, 3)) / (1 + t)
    density = nd.from_energy(fn, (2, 2, 1), SCHEDULE, parameters=jnp.float32(2.0), conditions=np.int32(3), batched=True)
    nd.save(density, tmp_path / "a")
    again = nd.load(tmp_path / "a", network=fn)
    x = jax.random.normal(jax.random.key(0), (3, 2, 2, 1))
    assert again.no_condition == 3 and again.no_condition.dtype == jnp.int32
    for d in (again, density):
        np.testing.assert_allclose(d.given(1).log_prob(x, 0.3), density.given(1).log_prob(x, 0.3), rtol=1e-6)
    layout = nd.from_energy(
        fn, (2, 2, 1), SCHEDULE, parameters=2.0, conditions=jax.ShapeDtypeStruct((), jnp.int32), batched=True
    )
    nd.save(layout, tmp_path / "b")
    assert nd.load(tmp_path / "b", network=fn).condition == layout.condition


def test_weights_may_be_stored_in_half(tmp_path):
    density = nd.from_noise_prediction(Net(width=64), (2,), SCHEDULE)
    for name, dtype in (("full", None), ("half", "float16")):
        nd.save(density, tmp_path / name, dtype=dtype)
    again = nd.load(tmp_path / "half", network=Net(seed=1, width=64))
    assert again.parameters["first"]["kernel"].dtype == jnp.float32
    np.testing.assert_allclose(score(again), score(density), rtol=0.02, atol=0.02)


def test_other_containers_want_a_template(tmp_path):
    from typing import Any, NamedTuple

    class Weights(NamedTuple):
        scale: Any

    fn = lambda w, x, t: w.scale * x
    nd.save(nd.from_noise_prediction(fn, (2,), SCHEDULE, parameters=Weights(jnp.ones(2))), tmp_path / "a")
    with pytest.raises(CheckpointError, match="give parameters= of their form"):
        nd.load(tmp_path / "a", network=fn)
    again = nd.load(tmp_path / "a", network=fn, parameters=Weights(jnp.zeros(2)))
    np.testing.assert_array_equal(again.parameters.scale, 1.0)


def other_function(x, t):
    return jnp.tanh(x)


@pytest.mark.parametrize(("kind", "network", "words"), [
    ("nnx", None, "not its function. Give that: nd.load"),
    ("nnx", lambda: Net(width=5), r"do not fit.*of another shape: .*first.*\(3, 4\) instead of \(3, 5\)"),
    ("nnx", lambda: captures(), "weights of a nnx network; network= is a captured one. Give the one that it was"),
    ("captured", lambda: other_function, r"do not fit.*without a place.*captured|do not fit"),
    ("captured", lambda: (lambda x, t: -captures()(x, t)), "predicts something else than when it was saved"),
    ("parameters", lambda: (lambda w, x, t: -by_parameters(w, x, t)), "predicts something else"),
    ("parameters", lambda: (lambda w, x, t: w["b"] @ x), "cannot be called.*KeyError"),
    ("linen", lambda: 3, "must be callable"),
])  # fmt: skip
def test_other_networks_are_refused(kind, network, words, tmp_path):
    fn, parameters = NETWORKS[kind][0]()
    nd.save(nd.from_noise_prediction(fn, (2,), SCHEDULE, parameters=parameters), tmp_path / "a")
    with pytest.raises(CheckpointError, match=f"(?s){words}") as caught:
        nd.load(tmp_path / "a", network=None if network is None else network())
    assert str(tmp_path / "a") in str(caught.value)


def test_what_cannot_be_saved(tmp_path):
    density = nd.from_noise_prediction(captures(), (2,), SCHEDULE, timesteps=lambda t: 5 * t)
    with pytest.raises(ParameterError, match="a function of continuous time.*leave timesteps= out"):
        nd.save(density, tmp_path / "a")
    density = nd.from_noise_prediction(captures(), (2,), SCHEDULE)
    with pytest.raises(ParameterError, match="jax.tree.map.*Save what nd.from_"):
        nd.save(jax.tree.map(lambda a: a, density), tmp_path / "a")
    with pytest.raises(ParameterError, match="holds no condition"):
        nd.save(
            nd.from_noise_prediction(lambda x, t, c: c, (2,), SCHEDULE, conditions=np.ones(2)).given([0, 1]),
            tmp_path / "a",
        )
    assert list(tmp_path.iterdir()) == []


def test_a_network_for_a_density_of_this_package_is_refused(tmp_path):
    nd.save(nd.load_pretrained("ring"), tmp_path / "ring")
    assert repr(nd.load(tmp_path / "ring")) == repr(nd.load_pretrained("ring"))
    with pytest.raises(CheckpointError, match="Leave out network="):
        nd.load(tmp_path / "ring", network=captures())


FAR = {"type": "VarianceExploding", "sigma_min": 0.01, "sigma_max": 1e4, "rho": 7.0}
CHANGES = {
    "another class": (lambda a, c: c.update({"class": "Other"}), "class must be one of"),
    "another prediction": (lambda a, c: c.update(prediction="eps"), "prediction must be one of noise"),
    "another kind": (lambda a, c: c.update(network="torch"), "network must be one of function"),
    "no timesteps": (lambda a, c: c.update(timesteps=None), "discrete levels"),
    "other timesteps": (lambda a, c: c.update(timesteps="integer"), "predicts something else"),
    "another schedule": (lambda a, c: c.update(schedule={"type": "Other"}), "schedule must be one of"),
    "a schedule beyond": (lambda a, c: c.update(schedule=FAR), "ratios up to"),
    "no structure": (lambda a, c: c.update(structure=None), "parameters= of their form"),
    "a structure of nonsense": (lambda a, c: c.update(structure={"dict": 3}), "is no structure of weights"),
    "batched by a word": (lambda a, c: c.update(batched="no"), "batched must be True or False"),
    "an escape as name": (lambda a, c: c.update(name="\x1b[31m"), "name must be printable"),
    "a condition it does not take": (
        lambda a, c: c.update(condition={"shape": [2], "dtype": "float32"}),
        "cannot be called",
    ),
    "a condition of text": (lambda a, c: c.update(condition={"shape": [2], "dtype": "str"}), "dtype must be one of"),
    "a weight missing": (lambda a, c: a.pop("state['shift']"), "shift"),
    "a weight too many": (lambda a, c: a.update(more=np.ones(2)), "without a place: .*more"),
    "a weight of another shape": (lambda a, c: a.update({"state['a'][1]": np.ones(3)}), "cannot be called|shape"),
    "a probe missing": (lambda a, c: a.pop("probe.r"), "probe.r"),
    "a probe of another shape": (lambda a, c: a.update({"probe.y": a["probe.y"][:, :, :1]}), "does not describe|shape"),
    "another probe": (lambda a, c: a.update({"probe.noise": -a["probe.noise"]}), "predicts something else"),
    "a variance below zero": (lambda a, c: a.update(variance=-a["variance"]), "variance must lie in"),
    "axes that are none": (lambda a, c: a.update(vectors=np.ones((2, 2), np.float32)), "orthonormal"),
    "a mean of another length": (lambda a, c: a.update(mean=np.zeros(3)), "mean has shape"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_altered_files(what, tmp_path):
    path, (change, words) = tmp_path / "a", CHANGES[what]
    nd.save(nd.from_noise_prediction(by_parameters, (2,), TABLE, parameters=weights(), timesteps="fractional"), path)
    arrays, config = checkpoint.read(path)
    change(arrays, config)
    checkpoint.write(path, arrays, config)
    with pytest.raises(CheckpointError, match=f"(?s)a .*{words}") as caught:
        nd.load(path, network=by_parameters)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 1200
