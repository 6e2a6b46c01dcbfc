"""Networks that predict exactly, of a mixture in the plane, and the schedules they may have been trained under."""

import jax
import jax.numpy as jnp
import numpy as np
from densities import mixture

import numpyro_diffusion as nd

POINTS = 1.5 * jax.random.normal(jax.random.key(5), (4, 2))
PREDICTIONS = {
    "noise": nd.from_noise_prediction, "velocity": nd.from_velocity, "denoiser": nd.from_denoiser,
    "flow": nd.from_flow, "score": nd.from_score, "energy": nd.from_energy,
}  # fmt: skip
BETAS = np.linspace(1e-4, 0.02, 1000)
#: Schedules by name, and what a network is told of them.
SCHEDULES = {
    "cosine": (nd.VariancePreserving.cosine(), None),
    "exploding": (nd.VarianceExploding(0.01, 80.0), None),
    "betas": (nd.NoiseSchedule.from_betas(BETAS), "fractional"),
    "sigmas": (nd.NoiseSchedule.from_sigmas(np.geomspace(0.02, 60.0, 30)), "sigma"),
    "flow": (nd.NoiseSchedule.linear_flow(), None),
}
#: What other schedules are read under: within the range of all of the above.
OTHER = nd.VariancePreserving.cosine(50.0)
TIMES = (0.2, 0.5, 0.9)


def t_of(told, schedule, timesteps):
    """The schedule's time of what the network was told."""
    if timesteps == "fractional":
        return told / (schedule.num_steps - 1)
    if timesteps == "sigma":
        return schedule.time(told)  # variance exploding
    if hasattr(schedule, "sigma_max") and timesteps is None and schedule == SCHEDULES["flow"][0]:
        return schedule.time(told / (1 - told))
    return told


def exact(prediction, schedule, timesteps=None, density=None):
    """The network `(x, time) -> output` that predicts exactly, of the noised mixture."""
    density = (mixture() if density is None else density).with_schedule(schedule)

    def network(x, told):
        t = t_of(told, schedule, timesteps)
        if prediction == "energy":
            return 3.0 - density.log_density(x, t)  # the normaliser is anyone's
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        score = jax.grad(density.log_density)(x, t)
        noise, clean = -sigma * score, (x + sigma**2 * score) / alpha
        return {
            "noise": noise, "velocity": alpha * noise - sigma * clean, "denoiser": clean, "flow": noise - clean,
            "score": score,
        }[prediction]  # fmt: skip

    return network


def adapted(prediction="noise", schedule="cosine", **options):
    """The density of an exact network."""
    schedule, timesteps = SCHEDULES[schedule]
    network = exact(prediction, schedule, timesteps)
    return PREDICTIONS[prediction](network, (2,), schedule, timesteps=timesteps, **options)


@jax.jit
def scores(density, x=POINTS):
    """Scores [times, points, 2]."""
    return jax.vmap(lambda t: density.score(x, t))(jnp.array(TIMES))


def worst(found, true):
    """The largest error, relative to the largest score of each level."""
    return float(np.max(np.abs(found - true) / np.max(np.abs(true), axis=(1, 2), keepdims=True)))


def half_precision():
    """float16, or bfloat16 on a processor without instructions for it, for which XLA compiles none."""
    try:
        jax.jit(lambda x: x + 1)(jnp.ones(1, jnp.float16))
    except jax.errors.JaxRuntimeError:
        return jnp.bfloat16.dtype.type
    return np.float16
