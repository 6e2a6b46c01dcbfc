"""Are densities of vectors normalised under each condition, and how good are they on points they have not seen?

    python benchmarks/posteriors/conditions.py            # 3 seeds a row, a minute each
    python benchmarks/posteriors/conditions.py --quick

Every problem is trained by the defaults and as before, over one Gaussian that knows no condition.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

import numpyro_diffusion as nd
from benchmarks.table import arguments, measure
from numpyro_diffusion.errors import DiagnosticWarning
from numpyro_diffusion.train.conditional import conditioned

ROWS, STEPS, HELD_OUT = 5000, 2000, 2000
COLUMNS = ["held out", "best", "root mean square of log Z", "least", "largest", "without"]
HEADER = f"""# Conditions of vectors

`python benchmarks/posteriors/conditions.py`: {ROWS:,} rows, {STEPS:,} steps of 512. `held out`: mean log density of {HELD_OUT:,} other rows under their condition, in nats; `best`: that of the density they are drawn from. log Z at t = 0 by quadrature
under five conditions of the data: root mean square, least and largest; `without`: without a condition. "one Gaussian": the energy stands on one that does not follow the condition, and its offset does not know it either."""


def line(c, rng):
    """A straight line with normal noise."""
    return c + 0.5 * rng.normal(size=c.shape), _normal(c, 0.5)


def curve(c, rng):
    """A curve whose noise grows along it."""
    scale = 0.3 * np.exp(0.5 * c)
    return np.sin(2 * c) + scale * rng.normal(size=c.shape), _normal(np.sin(2 * c), scale)


def shares(c, rng):
    """Two modes; the condition says which is likely."""
    p = 1 / (1 + np.exp(-2 * c))
    parts = _normal(1.0, 0.3), _normal(-1.0, 0.3)
    x = np.where(rng.uniform(size=c.shape) < p, 1.0, -1.0) + 0.3 * rng.normal(size=c.shape)
    return x, lambda x: np.logaddexp(np.log(p) + parts[0](x), np.log1p(-p) + parts[1](x))


def narrow(c, rng):
    """Two modes close to a line, narrow beside its length."""
    first = rng.uniform(size=c.shape) < 0.3
    parts = _normal(c + 0.1, 0.03), _normal(c - 0.05, 0.03)
    x = c + np.where(first, 0.1, -0.05) + 0.03 * rng.normal(size=c.shape)
    return x, lambda x: np.logaddexp(np.log(0.3) + parts[0](x), np.log(0.7) + parts[1](x))


def ring(c, rng):
    """A ring in the plane, whose radius is the condition."""
    radius = 1.2 + 0.35 * np.clip(c, -2, 2)
    r, angle = radius + 0.05 * rng.normal(size=c.shape), rng.uniform(0, 2 * np.pi, c.shape)
    along = lambda x: np.linalg.norm(x, axis=1, keepdims=True)
    x = np.concatenate([r * np.cos(angle), r * np.sin(angle)], axis=1)
    return x, lambda x: _normal(radius, 0.05)(along(x)) - np.log(2 * np.pi * along(x))


def _normal(mean, scale) -> Callable:
    return lambda x: -0.5 * ((x - mean) / scale) ** 2 - np.log(scale * np.sqrt(2 * np.pi))


PROBLEMS = {"line": line, "curve": curve, "shares": shares, "narrow": narrow, "ring": ring}


def row(problem: Callable, *, follows: bool) -> Callable[[int], dict]:
    """A row of the table: by the defaults, or over a Gaussian that does not follow the condition."""

    def figures(seed: int) -> dict:
        rng = np.random.default_rng(seed)
        c = rng.normal(size=(ROWS, 1))
        x, _ = problem(c, rng)
        training = nd.TrainingConfig(num_steps=STEPS)
        settings = {"conditions": c, "training": training, "progress_bar": False}
        if follows:
            p = nd.fit(jax.random.key(seed), x, **settings)
        else:
            plain = lambda network, conditions, form, **_: conditioned(network, conditions, form, is_calibrated=False)
            room = "numpyro_diffusion.train.fit"
            with mock.patch(f"{room}.base_of", lambda x, c: None), mock.patch(f"{room}.conditioned", plain):
                p = nd.fit(jax.random.key(seed), x, **settings)
        others = rng.normal(size=(HELD_OUT, 1))
        x, log_prob = problem(others, rng)
        held_out = jax.jit(jax.vmap(lambda c, x: p.given(c).log_prob(x)))(jnp.asarray(others), jnp.asarray(x))
        log_z = [_log_z(p.given([value])) for value in (-1.5, -0.7, 0.0, 0.7, 1.5)]
        return {
            "held out": np.mean(held_out), "best": np.mean(log_prob(x)),
            "root mean square of log Z": np.sqrt(np.mean(np.square(log_z))), "least": min(log_z),
            "largest": max(log_z), "without": _log_z(p),
        }  # fmt: skip

    return figures


def _log_z(p) -> float:
    """By sums over a grid that is far finer than all there is."""
    (size,) = p.event_shape
    axis = np.linspace(-8, 8, 8001) if size == 1 else np.linspace(-2.6, 2.6, 521)
    grid = np.stack(np.meshgrid(*[axis] * size), axis=-1).reshape(-1, size)
    return float(np.log(np.sum(np.exp(np.asarray(p.log_prob(grid), np.float64))) * (axis[1] - axis[0]) ** size))


if __name__ == "__main__":
    warnings.simplefilter("ignore", DiagnosticWarning)
    options = arguments(__doc__ or "", seeds=3)
    table = [
        (f"{name}: {what}", row(problem, follows=follows))
        for name, problem in PROBLEMS.items()
        for what, follows in (("default", True), ("one Gaussian", False))
    ]
    measure("conditions", options, table, HEADER, COLUMNS)
