"""From a NumPyro model and its data to the joint density that is annealed: checks, and the layout of its latents."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import validation_enabled
from numpyro.distributions import biject_to
from numpyro.handlers import trace
from numpyro.primitives import Messenger, sample

from ..checks.numbers import is_traced
from ..density.abstract import gaussian_at
from ..density.density import Conditional, Density
from ..density.gaussian import Gaussian
from ..errors import ArgumentTypeError, ParameterError, ShapeError, UnsupportedModelError, warn
from ..program import array_digest
from .data import check_data
from .enumeration import discrete_sites, with_dependents
from .handlers import Bound, arrays, drawn, noise_level
from .joint import JointDensity
from .likelihood import data_draws, knots, likelihood_powers, widenings
from .model_call import ModelCall, Site, name_of, typed_key
from .prior import StartDensity
from .sites import counted, is_data, is_latent, normal_sites, prior_of
from .zeros import Zeros

FORWARD_DRAWS = 256
NO_START = (
    "site {!r} cannot be drawn from its own distribution, and annealing starts from such draws. Give it a proper prior."
)


def check_model(model) -> None:
    """Raise ArgumentTypeError unless a model is a function."""
    if not callable(model):
        raise ArgumentTypeError(f"model must be a NumPyro model, a function; got {type(model).__name__}.")


def check_no_start(init_params) -> None:
    """Raise ParameterError for what NumPyro's kernels would start from."""
    if init_params is not None:
        raise ParameterError(
            "init_params is not taken: annealed chains start from exact draws at t = 1, whose weights would be "
            "wrong from anywhere else. Leave it out."
        )


def prepare(rng_key, call: ModelCall, likelihood_power=None) -> tuple[ModelCall, JointDensity]:
    """A model as it was read, and the joint density of its latents at every noise level.

    The key is for forward draws of the model and for subsampled plates; `likelihood_power` as for `AnnealedMCMC`.

    Raises:
        UnsupportedModelError: for discrete latents that cannot be summed out, priors inside `scan`, improper latents,
            masked or subsampled latents, models without a diffusion prior; the message names the site.
        ShapeError: if an observed value does not fit its distribution.
        ParameterError: for NaN among the data, or a site whose log density is NaN at the start.
    """
    first_key, other_key, *joint_keys = jax.random.split(typed_key(rng_key), 4)
    call, bound = read_model((first_key, other_key), call)
    return call, build_joint(joint_keys, call, bound, likelihood_power)


def read_model(rng_keys, call: ModelCall) -> tuple[ModelCall, dict[str, Bound]]:
    """The call, with the layout of its latents, and the densities of its priors; errors as for `prepare`."""
    # Two traces of the model: what differs between them depends on a latent.
    first_key, other_key = rng_keys
    sites = _first_trace(call, first_key)
    bound = _bind(sites)
    others = _first_trace(call, other_key)
    _check_fixed(sites, others, bound)
    _check_latents(sites, bound)
    _check_drawn(sites, others)
    check_data(sites, others)
    if (discrete := discrete_sites(sites)) is not None:
        discrete = with_dependents(discrete, call.model, call.args, call.kwargs, sites)
    summed = () if discrete is None else discrete.names
    plates = {k: s["value"] for k, s in sites.items() if s["type"] == "plate" and len(s["value"]) < s["args"][0]}
    for name, chosen in plates.items():
        warn(
            f"plate {name!r} is subsampled: the run takes one subsample, {len(chosen)} of {sites[name]['args'][0]},"
            " and scales its log likelihood up. Posterior and evidence are of that subsample, not of all data; leave "
            "subsample_size out for these."
        )
    layout = tuple(
        Site(k, tuple(biject_to(s["fn"].support).inverse_shape(jnp.shape(s["value"]))), k in bound)
        for k, s in sites.items()
        if is_latent(s) and k not in summed
    )
    # What an observed Normal site predicts must be one value for each point.
    normal = () if summed else normal_sites(sites, sum(site.size for site in layout))
    observed = {k: np.asarray(s["value"]) for k, s in sites.items() if is_data(s)}
    return call._replace(sites=layout, plates=plates, normal=normal, observed=observed, discrete=discrete), bound


def build_joint(rng_keys, call: ModelCall, bound: dict[str, Bound], likelihood_power=None) -> JointDensity:
    """The joint density of a model that has been read; errors as for `prepare`."""
    draw_key, power_key = rng_keys
    gaussian_key, power_key = jax.random.split(power_key)
    size = sum(site.size for site in call.sites)
    joint = JointDensity(name_of(call.model), bound, call.sites, call.view, Gaussian.standard(size))
    kept = call.traced(("start", "start_log_prob", "constrain", "log_likelihood", "counted"), bound)
    joint.programs = kept | call.traced(("site_log_probs", "generated", "predicted"), bound)
    draws = _starts(joint, draw_key)
    joint.moments = _moments(joint, draws)
    draws, ratios = data_draws(joint, gaussian_key, draws), knots(joint)
    log_probs, least, share = _site_log_probs(joint, draws)
    _check_start(log_probs)
    joint.has_zeros = any(bool(jnp.isneginf(log_probs[name]).any()) for name in least)
    joint.powers = likelihood_powers(joint, power_key, draws, ratios, likelihood_power)
    joint.zeros = {name: Zeros(least[name], share[name], 1 - joint.powers[1, 0]) for name in least}
    call = call._replace(zeros=joint.zeros)
    if likelihood_power is None and call.normal:
        joint.widenings = widenings(joint, draws, ratios, names=call.normal)
    joint.programs = kept | call.traced(("log_prob",), bound, widths=joint.widths(1.0))
    return joint


class _record_starts(Messenger):
    """Draw latent diffusion priors from their start, so that a model can be traced before anything is known of it."""

    name: str | None = None

    def process_message(self, msg):
        self.name = msg.get("name", self.name)
        if msg["type"] == "control_flow":
            noise_level().process_message(msg)
        if (prior := prior_of(msg)) is not None:
            if not is_traced(prior.t) and np.any(np.asarray(prior.t) != 0):
                raise UnsupportedModelError(
                    f"the prior of site {msg['name']!r} stands at noise level t = {float(prior.t):.3g}; annealing "
                    "takes it through all levels to t = 0, the data. Leave t out, or use numpyro.infer.MCMC."
                )
            bound = {msg["name"]: Bound(StartDensity(prior.density))}
            noise_level(t=1.0, likelihood_power=0.0, bound=bound).process_message(msg)


def _first_trace(call: ModelCall, rng_key):
    recorded = _record_starts(drawn(arrays(call.model), rng_key))
    try:
        # NumPyro's validation names no site, and one bad draw would do; `_check_start` looks at all of them.
        with validation_enabled(False):
            return trace(recorded).get_trace(*call.args, **call.kwargs)
    except UnsupportedModelError:
        raise
    except NotImplementedError as error:
        raise UnsupportedModelError(NO_START.format(recorded.name)) from error
    except (TypeError, ValueError) as error:
        if isinstance(density := _sampled_at(error.__traceback__), Density):
            raise ArgumentTypeError(
                f"numpyro.sample takes a distribution; got the density {density!r}. Make it one: "
                f"numpyro.sample(name, nd.DiffusionPrior({density!r}))."
            ) from error
        found = any(words in str(error) for words in ("ncompatible shapes", "broadcast", "contracting dim"))
        if found and "jax_numpy_rank_promotion" not in str(error):
            raise ShapeError(
                f"shapes in the model do not fit together: {error} Compare the priors' event shapes with the data's."
            ) from error
        raise


def _sampled_at(trace: TracebackType | None) -> Any:
    """What was given to `numpyro.sample` where that failed itself: it knows no site yet, and tells no handler."""
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    frame = None if trace is None else trace.tb_frame
    return frame.f_locals.get("fn") if frame is not None and frame.f_code is sample.__code__ else None


def _bind(sites) -> dict[str, Bound]:
    bound, schedule = {}, None
    for name, site in sites.items():
        if (prior := prior_of(site)) is None:
            continue
        start: Any = prior.density
        density = start.density
        schedule = schedule or density.schedule
        density = density if density.schedule == schedule else density.with_schedule(schedule)
        density = jax.tree.map(lambda a: a, density)  # what functions of the user's compute is read once
        bound[name] = Bound(density, gaussian_at(density, 0.0))
    if not bound:
        raise UnsupportedModelError(
            "the model has no latent site with a diffusion prior; what is observed or conditioned on is none. Sample "
            "one, numpyro.sample('x', nd.DiffusionPrior(density)), or use numpyro.infer.MCMC."
        )
    return bound


def _check_fixed(sites, others, bound):
    """Refuse priors whose density changes from one draw of the model to the next."""
    for name in bound:
        first, second = (jax.tree.leaves(prior_of(t[name])) for t in (sites, others))
        if [array_digest(a) for a in first] != [array_digest(a) for a in second]:
            of_condition = (
                " Where it is a condition that is latent, numpyro.infer.NUTS samples the model as it is; of a few "
                "conditions make a mixture of densities."
            )
            raise UnsupportedModelError(
                f"the density of site {name!r} depends on another latent. Its normaliser would change with that "
                "latent and is not known. Fix the density, and let the latent act on its location and scale: "
                "dist.TransformedDistribution(nd.DiffusionPrior(density), AffineTransform(loc, scale))."
                f"{of_condition if isinstance(bound[name].density, Conditional) else ''}"
            )


def _check_latents(sites, bound):
    for name, site in sites.items():
        if not is_latent(site):
            continue
        if not np.all(counted(site["fn"])) and name.endswith("_unobserved"):
            raise UnsupportedModelError(
                f"site {name!r} stands for what obs_mask leaves out, and cannot be drawn where something is observed. "
                "Put numpyro.handlers.mask around the observed site instead; numpyro.infer.Predictive then imputes."
            )
        if not np.all(counted(site["fn"])):
            raise UnsupportedModelError(
                f"site {name!r} is masked: without its prior it has no distribution where the mask is False. "
                "Mask the observed sites instead."
            )
        if site["scale"] is not None and not np.all(np.asarray(site["scale"]) == 1):
            raise UnsupportedModelError(
                f"site {name!r} is a latent with its log density scaled by {site['scale']}, as in a subsampled plate: "
                "its start cannot be drawn. Subsample the data only."
            )
        if not np.all(np.isfinite(np.asarray(site["value"]))):
            raise UnsupportedModelError(NO_START.format(name))


def _check_drawn(sites, others):
    """Refuse latents that are no draws of their distributions: chains would start there, with the weights of draws."""
    for name in (name for name in sites if is_latent(sites[name]) and name in others):
        first, second = sites[name]["value"], others[name]["value"]
        if np.size(first) and not sites[name]["fn"].support.is_discrete and np.array_equal(first, second):
            raise UnsupportedModelError(
                f"latent site {name!r} has one value in every draw of the model, as numpyro.handlers.substitute gives. "
                "Fix it by numpyro.handlers.condition, which counts its density, or by do, which does not."
            )


@jax.jit
def _starts(joint: JointDensity, rng_key):
    """Draws [n, d] of the start."""
    return jax.vmap(lambda key: joint.start(key)[0])(jax.random.split(rng_key, FORWARD_DRAWS))


@jax.jit
def _site_log_probs(joint: JointDensity, draws):
    """Log densities [n] by site at draws [n, d]; by observed site the least finite one, 0 without, and their share."""
    log_probs, least, share = jax.lax.map(lambda z: joint.call("site_log_probs", z), draws, batch_size=len(draws))
    least = {name: jnp.nan_to_num(values.min(), posinf=0.0) for name, values in least.items()}
    return log_probs, least, {name: jnp.maximum(values.mean(), 1 / len(draws)) for name, values in share.items()}


def _check_start(log_probs):
    for name, values in log_probs.items():
        bad = float(np.mean(np.isnan(np.asarray(values))))
        if bad == 1.0:
            raise ParameterError(
                f"the log density of site {name!r} is NaN at every start: check its distribution's parameters there "
                "(negative scales, logarithms of negative numbers), and density.log_prob if it is a prior."
            )
        if bad > 0.1:
            warn(
                f"the log density of site {name!r} is NaN at {bad:.0%} of the starts; those chains get weight zero. "
                "Check its distribution's parameters."
            )


def _moments(joint, draws) -> Gaussian:
    """Moments of the draws, of those latents that have no diffusion prior; uncorrelated between all of them.

    Diagonal, for a few hundred draws say little of the covariances of many latents.
    """
    is_prior = joint.is_prior()
    found, unit = (draws.mean(0), jnp.maximum(draws.var(0), 1e-8)), Gaussian.standard(draws.shape[1])
    return unit._replace(mean=jnp.where(is_prior, 0.0, found[0]), variance=jnp.where(is_prior, 1.0, found[1]))
