"""Annealed runs whose energies fail, and whether the user gets to know."""

from __future__ import annotations

import dataclasses
import itertools
import math
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import numpyro_diffusion as nd
from numpyro_diffusion.diagnose.quadrature import Seeds, integrate
from numpyro_diffusion.errors import DiagnosticWarning, DiffusionError

KEY = jax.random.key(0)
MOMENTS = {"mean": np.zeros(2), "covariance": np.eye(2)}


@dataclasses.dataclass
class Fault:
    """A run with something wrong in it: its name, how to call it, and the true log evidence where there is one."""

    name: str
    call: Any
    log_evidence: float | None = None


def standard(log_density, x):
    return -0.5 * jnp.sum(x**2) - jnp.log(2 * jnp.pi)


def broken(parameters, x, t):
    """N(0, I) that has another value where x[0] > `beyond`, at times below `until`."""
    bad = (x[0] > parameters["beyond"]) & (t < parameters["until"])
    return jnp.where(bad, parameters["value"], standard(None, x))


def half_square(scale, x, t):
    """N(0, I) computed in single halves: (scale x)^2 overflows beyond 256 / scale."""
    y = x.astype(jnp.float16) * jnp.float16(scale)
    return (-0.5 * jnp.sum(y * y) / jnp.float16(scale) / jnp.float16(scale)).astype(x.dtype) - jnp.log(2 * jnp.pi)


def half_exponential(scale, x, t):
    """log of an exponential that overflows, in half precision: +inf where x[0] > 11 / scale."""
    y = x.astype(jnp.float16)
    return (-0.5 * jnp.sum(y * y) + 0 * jnp.log(jnp.exp(jnp.float16(scale) * y[0]))).astype(x.dtype)


def half_result(scale, x, t):
    """Half precision to the end: the log density itself is float16."""
    y = x.astype(jnp.float16) * jnp.float16(scale)
    return -0.5 * jnp.sum(y * y)


def energies(quick: bool) -> dict:
    """Run every fault: how each of them ended, by section. Without a fault nothing is to be said."""
    control = verdict(Fault("no fault", _annealed(_broken_density(0.0, np.inf, 0.0), nd.HMC()), 0.0))
    assert control == "right", control
    verdicts: dict[str, list[str]] = {}
    for group, fault in [(group, fault) for group, faults in fault_list(quick).items() for fault in faults]:
        verdicts.setdefault(group, []).append(f"{verdict(fault)}: {fault.name}")
    return verdicts


def _annealed(density, kernel, **settings):
    settings = {"num_chains": 256, "levels": 20, "num_pilot_chains": 32, "progress_bar": False} | settings
    return lambda: nd.anneal(KEY, density, kernel, **settings)


def _broken_density(value, beyond, until):
    parameters = {"value": jnp.asarray(value), "beyond": jnp.asarray(beyond), "until": jnp.asarray(until)}
    return nd.as_density(broken, (2,), parameters=parameters, **MOMENTS)


def fault_list(quick: bool) -> dict[str, list[Fault]]:
    """Faults by section."""
    kernels = {"HMC": nd.HMC(), "ULA": nd.ULA()} if quick else {
        "HMC": nd.HMC(), "MALA": nd.MALA(), "ULA": nd.ULA(), "UHMC": nd.UHMC(),
    }  # fmt: skip
    # P(x[0] <= 1) of N(0, 1).
    part = math.log(0.8413447)

    found: dict[str, list[Fault]] = {"NaN or infinite energies": [], "a step size that always rejects": []}
    for (kernel, settings), value in itertools.product(kernels.items(), (np.nan, np.inf, -np.inf)):
        for where, beyond, until, truth in (
            ("in some chains", 1.0, 2.0, part), ("in all chains", -np.inf, 2.0, None),
            ("in some chains below t = 0.5", 1.0, 0.5, part), ("in all chains below t = 0.5", -np.inf, 0.5, None),
        ):  # fmt: skip
            for threshold in (0.5, 0.0):
                name = f"{value} {where}, {kernel}, resample_threshold {threshold}"
                run = _annealed(_broken_density(value, beyond, until), settings, resample_threshold=threshold)
                found["NaN or infinite energies"].append(Fault(name, run, truth))
    plain = _broken_density(0.0, np.inf, 0.0)
    for kernel in (nd.HMC, nd.MALA, nd.ULA, nd.UHMC):
        for step in (1e4, 1e30):
            name = f"{kernel.__name__}(step_size={step:g})"
            found["a step size that always rejects"].append(Fault(name, _annealed(plain, kernel(step)), 0.0))
    orders = {
        "increasing": [0.0, 0.5, 1.0], "repeated": [1.0, 0.5, 0.5, 0.0], "beyond 1": [2.0, 1.0, 0.0],
        "negative": [1.0, 0.5, -0.1], "with NaN": [1.0, np.nan, 0.0], "one": [1.0], "none": [], "text": "many",
        "nested": [[1.0, 0.0]], "one number": 1, "no number": 0,
    }  # fmt: skip
    found["levels out of order"] = [
        Fault(f"{name}, {type(kernel).__name__}", _annealed(plain, kernel, levels=levels))
        for name, levels in orders.items() for kernel in (nd.HMC(0.5), nd.Reverse())
    ]  # fmt: skip
    found["overflow in half precision"] = []
    for fn, scales in (
        (half_square, (10.0, 100.0, 300.0)),
        (half_exponential, (1.0, 12.0)),
        (half_result, (1.0, 300.0)),
    ):
        for scale, kernel in itertools.product(scales, (nd.HMC(), nd.ULA())):
            half = nd.as_density(fn, (2,), parameters=jnp.asarray(scale), **MOMENTS)
            name = f"{fn.__name__}, scale {scale:g}, {type(kernel).__name__}"
            truth = _half_truth(fn, scale)
            found["overflow in half precision"].append(Fault(name, _annealed(half, kernel), truth))
    return found


def _half_truth(fn, scale: float) -> float:
    """Log evidence of what a function in half precision is, by quadrature, leaving out where it is infinite."""
    batch = jax.jit(jax.vmap(lambda x: fn(jnp.asarray(scale), x, 0.0)))

    def log_density(y):
        values = np.asarray(batch(jnp.asarray(y, jnp.float32)), dtype=np.float64)
        return np.where(np.isfinite(values), values, -np.inf)

    # Steps of half precision are no smaller than a two-thousandth.
    seeds, spacing = Seeds(np.zeros((1, 2)), np.full((1, 2), 1 / scale)), lambda y: 1e-6 + 1e-3 * np.abs(y).max(axis=1)
    found = integrate(log_density, np.zeros(2), np.ones(2), seeds, tolerance=0.01, most=1_000_000, spacing=spacing)
    if found.error > 0.1:
        raise RuntimeError(f"{fn.__name__} at scale {scale:g}: its evidence is known to {found.error:.2g} nats only.")
    return found.log_z


def verdict(fault: Fault) -> str:
    """How a run with a fault in it ended: error, warned, right or SILENT."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            run = fault.call()
        except Exception as error:
            typed = isinstance(error, DiffusionError | TypeError | ValueError)
            return f"error ({type(error).__name__})" if typed else f"SILENT ({type(error).__name__}: {error})"
    if any(issubclass(w.category, DiagnosticWarning) for w in caught):
        return "warned"
    if not np.all(np.isfinite(np.asarray(run.samples))):
        return "SILENT (samples not finite)"
    if fault.log_evidence is None or not run.is_weighted:
        return "SILENT (no warning)"
    off = abs(run.log_evidence - fault.log_evidence)
    # Five standard errors, and the noise of 256 chains where no resampling has told any.
    right = off < 5 * run.log_evidence_error + 0.4
    return "right" if right else f"SILENT (log evidence {run.log_evidence:.2f} for {fault.log_evidence:.2f})"
