"""What the command `doctor` does: what is installed, where it computes, and checks of half a minute with known answers.

A check that fails says what was found and what is true; nothing else here depends on chance, and the keys are fixed.
"""

from __future__ import annotations

import importlib.util
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import numpyro_diffusion as nd

from ..errors import EXTRAS, install

#: What the package stands on; the optional libraries are those of `errors.EXTRAS`.
LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpyro", "blackjax", "arviz", "numpy", "scipy", "safetensors")
#: Log integral of ring x bar of Table 1 (`datasets.targets`), to three decimals.
RING_TIMES_BAR = -0.471


def versions() -> Iterator[tuple[str, str]]:
    """(name, version) of Python, this package and its libraries."""
    yield "Python", f"{platform.python_version()}, {platform.system()} {platform.machine()}"
    yield "numpyro_diffusion", nd.__version__
    for name in LIBRARIES:
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            yield name, "no version is recorded"


def surroundings() -> Iterator[tuple[str, str]]:
    """(what, how) of devices, precision, the compilation cache and the extras."""
    devices = jax.devices()
    yield "devices", f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform})"
    is_double, folder = jax.config.jax_enable_x64, jax.config.jax_compilation_cache_dir
    yield "precision", "float64" if is_double else "float32; with JAX_ENABLE_X64=1 float64"
    remedy = "not kept; with JAX_COMPILATION_CACHE_DIR=FOLDER the next process compiles little"
    yield "compiled programs", f"kept in {folder}" if folder else remedy
    yield "densities", ", ".join(nd.list_pretrained())
    for extra, library in EXTRAS.items():
        found = importlib.util.find_spec(library) is not None
        yield f"extra {extra}", f"{library} is installed" if found else f"no {library}: {install(extra)}"


def gaussians() -> tuple[bool, str]:
    """The product of N(0, 1) and N(1, 2) in two dimensions integrates to N(1; 0, 3)^2 there."""
    eye = np.eye(2)
    p = nd.exact.GaussianMixture([[0.0, 0.0]], [eye], name="p")
    q = nd.exact.GaussianMixture([[1.0, 1.0]], [2 * eye], name="q")
    run = nd.anneal(jax.random.key(0), p * q, nd.HMC(), num_chains=400, levels=12, progress_bar=False)
    truth = -np.log(2 * np.pi * 3) - 1 / 3
    mean = np.mean(np.asarray(run.samples), axis=0)
    error = abs(run.log_evidence - truth)
    # The product is N(1/3, 2/3): five standard errors of 400 draws.
    fine = error < 5 * max(run.log_evidence_error, 0.01) and np.all(np.abs(mean - 1 / 3) < 5 * np.sqrt(2 / 3 / 400))
    found = f"log evidence {run.log_evidence:.3f} (true {truth:.3f}), mean {mean[0]:.2f}, {mean[1]:.2f} (true 0.33)"
    return bool(fine), found


def table_1() -> tuple[bool, str]:
    """The trained product of Table 1 has the evidence of the true one."""
    density = nd.load_pretrained("ring") * nd.load_pretrained("bar")
    run = nd.anneal(jax.random.key(0), density, nd.HMC(), num_chains=500, progress_bar=False)
    fine = abs(run.log_evidence - RING_TIMES_BAR) < 0.2
    return bool(fine), f"log evidence {run.log_evidence:.3f} +- {run.log_evidence_error:.3f} (true {RING_TIMES_BAR})"


def gradient() -> tuple[bool, str]:
    """Gradients are those of the log densities, by differences along random directions."""
    density, t, step = nd.load_pretrained("ring"), 0.5, 1e-2
    x, v = jax.random.normal(jax.random.key(0), (2, 64, 2))
    log_prob = jax.jit(lambda y: density.log_prob(y, t))
    slopes = np.asarray((log_prob(x + step * v) - log_prob(x - step * v)) / (2 * step), np.float64)
    found = np.sum(np.asarray(density.score(x, t) * v, np.float64), axis=1)
    error = np.max(np.abs(found - slopes)) / np.max(np.abs(slopes))
    return bool(error < 1e-2), f"largest relative difference {error:.1e}"


def files() -> tuple[bool, str]:
    """A saved density is read back as it was."""
    density, x = nd.load_pretrained("ring"), jax.random.normal(jax.random.key(0), (64, 2))
    with tempfile.TemporaryDirectory() as folder:
        nd.save(density, path := Path(folder) / "ring.safetensors")
        again = nd.load(path)
    same = bool(jnp.all(density.log_prob(x) == again.log_prob(x)))
    return same, "log densities are the same, bit for bit" if same else "log densities differ"


#: What is tested, and the test: (whether it is fine, what was found).
CHECKS: dict[str, Callable[[], tuple[bool, str]]] = {
    "product of two Gaussians": gaussians, "ring x bar of Table 1": table_1, "gradients": gradient, "files": files,
}  # fmt: skip


def run(echo) -> bool:
    """Print all of it; whether every check was passed."""
    for what, how in [*versions(), *surroundings()]:
        echo(f"{what:<18} {how}")
    echo(f"\n{len(CHECKS)} checks of known answers, most of a minute on an idle core, the first ones longest:")
    failed, start = [], time.perf_counter()
    for name, check in CHECKS.items():
        begin = time.perf_counter()
        try:
            fine, found = check()
        except Exception as error:  # whatever it is, the other checks are worth knowing
            fine, found = False, f"{type(error).__name__}: {error}"
        failed += [] if fine else [name]
        echo(f"{'ok  ' if fine else 'FAIL'} {name}: {found} ({time.perf_counter() - begin:.0f} s)")
    seconds = time.perf_counter() - start
    echo(f"\n{len(CHECKS) - len(failed)} of {len(CHECKS)} checks passed in {seconds:.0f} s")
    return not failed
