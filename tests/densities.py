"""Small densities that the tests share: every kind of leaf, in two dimensions, quick to compile."""

import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np

import numpyro_diffusion as nd
from numpyro_diffusion.density.base import data_gaussian
from numpyro_diffusion.density.energy import zero_with_gradient
from numpyro_diffusion.infer.model_call import ModelCall
from numpyro_diffusion.infer.setup import prepare
from numpyro_diffusion.pytree import register

# One compiled program per structure: operation by operation, JAX would compile hundreds.
log_prob_of = jax.jit(lambda density, x, t=0.0: density.log_prob(x, t))
score_of = jax.jit(lambda density, x, t=0.0: density.score(x, t))

# Mean [d] and covariance [d, d] of a Gaussian.
moments_of = operator.attrgetter("mean", "covariance")

NETWORK = {"width": 8, "num_blocks": 1, "embedding_size": 4}
MEAN = np.array([0.3, -0.2])
COVARIANCE = np.array([[1.0, 0.3], [0.3, 0.5]])
# A mixture of three.
MEANS = np.array([[-1.0, 0.5], [1.0, 0.0], [0.2, -1.0]])
COVARIANCES = np.array([[[0.2, 0.05], [0.05, 0.1]], [[0.3, 0.0], [0.0, 0.3]], [[0.1, 0.0], [0.0, 0.4]]])
WEIGHTS = np.array([0.2, 0.5, 0.3])


def gaussian(mean=(0.0, 0.0), covariance=((1.0, 0.0), (0.0, 1.0)), name="g", **kwargs):
    return nd.exact.GaussianMixture([mean], [covariance], name=name, **kwargs)


def mixture(name="m", **kwargs):
    return nd.exact.GaussianMixture(MEANS, COVARIANCES, WEIGHTS, name=name, **kwargs)


def box(name="box", **kwargs):
    return nd.exact.UniformBox([-1.0, -0.5], [0.8, 1.5], name=name, **kwargs)


def untrained(
    config, event_shape, parameterisation="l2", calibrated=True, *,
    mean, covariance, seed=0, sigma_max=20.0, base=None, schedule=None, cls=nd.EnergyDensity,
):  # fmt: skip
    """A density as training begins: of data with this mean and covariance."""
    return cls.fresh(
        jax.random.key(seed), config, event_shape, schedule=schedule or nd.VariancePreserving.cosine(),
        parameterisation=parameterisation, is_calibrated=calibrated, sigmas=jnp.array([0.01, sigma_max]), base=base,
        moments=data_gaussian(mean, covariance, config, base),
    )  # fmt: skip


def randomise(density, scale: float, seed=0) -> None:
    """Noise on all weights: none of the parts is trivial, as those are that training begins with."""
    leaves, treedef = jax.tree.flatten(density.state)
    rng = np.random.default_rng(seed)
    leaves = [a + jnp.asarray(scale * rng.normal(size=a.shape), a.dtype) for a in leaves]
    density.state = jax.tree.unflatten(treedef, leaves)


@functools.cache
def network(
    parameterisation="l2", calibrated=True, *, seed=0, name=None, schedule=None, condition_size=0, event_shape=(2,)
):
    """An untrained energy density, or a score model, whose weights are all random: none of its parts is trivial."""
    cls = nd.ScoreModel if parameterisation == "score" else nd.EnergyDensity
    scalars = int(parameterisation == "residual")
    config = nd.NetworkConfig(**NETWORK, condition_size=condition_size, scalar_outputs=scalars)
    size = int(np.prod(event_shape))
    mean, covariance = np.resize(MEAN, size), np.kron(np.eye(size // 2), COVARIANCE)
    density = untrained(
        config, event_shape, parameterisation, calibrated and cls is nd.EnergyDensity,
        mean=mean, covariance=covariance, seed=seed, schedule=schedule, cls=cls,
    )  # fmt: skip
    randomise(density, 0.3, seed)
    density.name = name or parameterisation
    return density


def in_float64(tree):
    """The pytree with its floats in double precision, to be used under `jax.enable_x64(True)`."""
    return jax.tree.map(lambda a: jnp.asarray(a, jnp.float64) if jnp.issubdtype(a.dtype, jnp.floating) else a, tree)


def bump(name, centre, scale):
    """A Gaussian-like leaf that is quick to trace, for laws in which the leaves do not matter."""

    def fn(parameters, x, t):
        return -0.5 * jnp.sum(((x - parameters[0]) / parameters[1]) ** 2) - t

    mean, covariance = np.full(2, centre), scale**2 * np.eye(2)
    parameters = (jnp.asarray(mean, dtype=float), jnp.asarray(scale, dtype=float))
    return nd.as_density(fn, (2,), parameters=parameters, mean=mean, covariance=covariance, normalised=True, name=name)


def function(name="f", **kwargs):
    """A normalised density as a user would write it: a Gaussian with the noise added by hand."""
    schedule = kwargs.get("schedule") or nd.VariancePreserving.cosine()

    def fn(parameters, x, t):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        variance = alpha**2 * parameters["variance"] + sigma**2
        return jnp.sum(-0.5 * (x - alpha * parameters["mean"]) ** 2 / variance - 0.5 * jnp.log(2 * jnp.pi * variance))

    parameters = {"mean": jnp.array([0.5, -0.5]), "variance": jnp.array([0.4, 0.9])}
    return nd.as_density(fn, (2,), schedule, parameters=parameters, normalised=True, name=name)


LEAVES = {
    "mixture": mixture,
    "box": box,
    "function": function,
    "l2": lambda **kw: network("l2", **kw),
    "dae": lambda **kw: network("dae", **kw),
    "inner_product": lambda **kw: network("inner_product", **kw),
    "l2_uncalibrated": lambda **kw: network("l2", False, **kw),
    "score": lambda **kw: network("score", **kw),
}


#: Points and a time at which two densities are compared.
X = jax.random.normal(jax.random.key(0), (5, 2))
T = 0.4


def composed():
    return mixture("p") * (0.5 * box("q") + 0.5 * network(name="n")) / function("r") ** 0.3


ANY = {**LEAVES, "composed": composed}


def three_dimensional():
    return nd.exact.GaussianMixture(np.zeros((1, 3)), np.eye(3)[None], name="q")


def exploding():
    return gaussian(schedule=nd.VarianceExploding())


class Unknown(nd.exact.GaussianMixture):
    """A user's class that JAX does not know to hold arrays."""


def unknown():
    return Unknown(np.zeros((1, 2)), np.eye(2)[None])


@register(("density",), ("schedule", "event_shape", "name", "floor"))
class ScoreOf(nd.Density):
    """The score of a density, and nothing else of it; below the noise-to-signal ratio `floor` it stays what it is."""

    has_log_density = False
    is_calibrated = False

    def __init__(self, density, name="score", floor=0.005):
        self.density, self.name, self.floor = density, name, floor
        self.schedule, self.event_shape = density.schedule, density.event_shape

    @property
    def resolution(self):
        return self.floor

    def log_density(self, x, t):
        held = self.schedule.time(jnp.maximum(self.schedule.noise_to_signal(t), self.floor))
        scale = self.schedule.alpha(held) / self.schedule.alpha(t)
        return zero_with_gradient(x, scale * jax.grad(self.density.log_density)(scale * x, held))

    def with_schedule(self, schedule):
        return ScoreOf(self.density.with_schedule(schedule), self.name, self.floor)

    def _moments(self):
        return self.density._moments()

    def gaussian(self, t):
        return self.density.gaussian(t)


def three():
    return bump("p", 0.2, 1.0), bump("q", -0.5, 0.7), bump("r", 0.5, 1.5)


def evaluated(formulas, leaves):
    """(log_prob, score) at X of each formula over densities, in one compiled program."""

    @jax.jit
    def both(leaves, x):
        densities = {name: formula(*leaves) for name, formula in formulas.items()}
        return {name: (d.log_prob(x, T), d.score(x, T)) for name, d in densities.items()}

    return both(leaves, X)


def evaluated_directly(formulas, leaves):
    """The same of each formula over the values of densities."""

    @jax.jit
    def both(leaves, x):
        def log_value(formula, point):
            return jnp.log(formula(*(jnp.exp(leaf.log_prob(point, T)) for leaf in leaves)))

        return {
            name: jax.vmap(jax.value_and_grad(functools.partial(log_value, formula)))(x)
            for name, formula in formulas.items()
        }

    return both(leaves, X)


def joint_density(rng_key, model, args=(), kwargs=None, *, view="gaussian", likelihood_power=None):
    """The joint density of a NumPyro model."""
    return prepare(rng_key, ModelCall.of(model, args, kwargs or {}, view), likelihood_power)[1]
