r"""Peers that know one log density, at t = 0: NumPyro's NUTS, and BlackJAX's adaptive tempered SMC.

Both sample :math:`p(x) L(x)` from draws of p. Tempered SMC goes through :math:`p L^\beta`, each :math:`\beta` as far
as half of the particles survive its weights, with HMC in between, whose step follows its acceptance. Functions are
`jax.tree_util.Partial`s, so that new arrays compile nothing.
"""

from __future__ import annotations

from functools import partial

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from blackjax.smc import resampling
from jax.tree_util import Partial
from numpyro.infer import MCMC, NUTS

LEAPFROGS, ESS, ACCEPTANCE, MOST_LEVELS = 5, 0.5, 0.8, 200


def nuts(
    rng_key, log_prior: Partial, log_likelihood: Partial, start, evaluations: int, depth: int = 4,
    support=dist.constraints.real_vector,
):  # fmt: skip
    """(last positions [N, d], evaluations per chain): one chain for each start, half of the evaluations warm it up.

    A bounded support is mapped to the plane, as NumPyro does with its own distributions.
    """
    start = dist.biject_to(support).inv(jnp.asarray(start, float))
    warm_up = max(evaluations // 2 // (2**depth - 1), 4)
    chains = MCMC(
        NUTS(partial(_model, support), max_tree_depth=depth), num_warmup=warm_up, num_samples=1, num_chains=len(start),
        chain_method="vectorized", jit_model_args=True, progress_bar=False,
    )  # fmt: skip
    warm_key, run_key = jax.random.split(rng_key)
    given, steps = (log_prior, log_likelihood, start[0]), ("num_steps",)
    chains.warmup(warm_key, *given, init_params={"x": start}, extra_fields=steps, collect_warmup=True)
    warm = np.asarray(chains.get_extra_fields(True)["num_steps"])
    spent, recent = float(warm.sum(1).mean()), float(warm[:, -2:].mean())
    chains.num_samples = max(round((evaluations - spent) / recent), 1)
    chains.run(run_key, *given, extra_fields=steps)
    spent += float(np.sum(chains.get_extra_fields(True)["num_steps"], 1).mean())
    return np.asarray(chains.get_samples(group_by_chain=True)["x"][:, -1]), spent


def _model(support, log_prior, log_likelihood, like):
    x = numpyro.sample("x", dist.ImproperUniform(support, (), like.shape))
    numpyro.factor("log density", log_prior(x) + log_likelihood(x))


def tempered_smc(rng_key, log_prior: Partial, log_likelihood: Partial, start, evaluations: int):
    """(samples [N, d], evaluations per particle): a first run tells how many temperatures there are, and costs nothing.

    The second takes as many HMC steps at each as the evaluations allow, all with the particles' own standard deviations.
    """
    first_key, key = jax.random.split(rng_key)
    start = jnp.asarray(start, float)
    _, levels = _smc(first_key, log_prior, log_likelihood, start, num_steps=4)
    # One gradient where a temperature begins, and one for each leapfrog.
    num_steps = max(round((evaluations / int(levels) - 1) / LEAPFROGS), 1)
    x, levels = _smc(key, log_prior, log_likelihood, start, num_steps=num_steps)
    return np.asarray(x), int(levels) * (1 + num_steps * LEAPFROGS)


@partial(jax.jit, static_argnames="num_steps")
def _smc(rng_key, log_prior, log_likelihood, start, *, num_steps: int):
    """(particles, number of temperatures)."""

    def scales(particles, step_size):
        return {"step_size": step_size[None], "inverse_mass_matrix": jnp.var(particles, axis=0)[None] + 1e-12}

    def algorithm(parameters):
        return blackjax.adaptive_tempered_smc(
            log_prior, log_likelihood, blackjax.hmc.build_kernel(), blackjax.hmc.init,
            {"num_integration_steps": jnp.array([LEAPFROGS]), **parameters}, resampling.systematic, ESS,
            num_mcmc_steps=num_steps,
        )  # fmt: skip

    def turn(carry):
        state, parameters, count, _, key = carry
        key, step_key = jax.random.split(key)
        new, info = algorithm(parameters).step(step_key, state)
        accepted = jnp.mean(info.update_info.acceptance_rate)
        # A Robbins-Monro step on the log of the step size, after every temperature.
        step_size = parameters["step_size"][0] * jnp.exp(2 * (accepted - ACCEPTANCE))
        return new, scales(new.particles, step_size), count + 1, state.tempering_param, key

    def goes_on(carry):
        # A turn resamples, moves at the temperature it finds and weighs for the next: the last one moves at 1.
        return (carry[3] < 1) & (carry[2] < MOST_LEVELS)

    first = scales(start, jnp.array(0.5))
    state = algorithm(first).init(start)
    state, _, count, _, _ = jax.lax.while_loop(goes_on, turn, (state, first, 0, state.tempering_param, rng_key))
    return state.particles, count
