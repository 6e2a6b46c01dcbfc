"""Energies that are believed where no data ever was, notebooks, and other processors."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import jax
import numpy as np

import numpyro_diffusion as nd
from benchmarks.faults.ordinary.inputs import KEY, Input, caught, require
from benchmarks.fresh import fresh

ROOT = Path(__file__).resolve().parents[3]


def _stripes(count: int, seed: int) -> np.ndarray:
    """Coloured pictures [count, 8, 8, 3] of a bar each."""
    rng = np.random.default_rng(seed)
    x = np.full((count, 8, 8, 3), -0.9)
    place, colour = rng.integers(1, 7, count), rng.integers(0, 3, count)
    x[np.arange(count), :, place, colour] = 0.8
    return (x + 0.1 * rng.normal(size=x.shape)).astype(np.float32)


def _clusters(count: int, seed: int, d: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centre = np.random.default_rng(99).normal(size=(5, d)) * 2
    return centre[rng.integers(0, 5, count)] + 0.05 * rng.normal(size=(count, d))


def wells() -> list[Input]:
    """Quickly trained energies: samples as likely as data are, or a finding."""

    def sampled(draw, parameterisation, steps, network=None, levels=25, **settings):
        x, held_out = draw(2000, 0).astype(np.float32), draw(200, 1).astype(np.float32)
        training = nd.TrainingConfig(num_steps=steps, batch_size=64, **settings)
        density = nd.fit(KEY, x, parameterisation=parameterisation, training=training, progress_bar=False,
                         network=network or nd.NetworkConfig(width=32, num_blocks=2))  # fmt: skip
        with caught() as said:
            run = nd.anneal(jax.random.key(1), density, nd.HMC(), num_chains=32, levels=levels, num_pilot_chains=16,
                            progress_bar=False)  # fmt: skip
        values, of_data = (np.asarray(density.log_prob(a)) for a in (run.samples, held_out))
        text = f"samples {np.median(values):.0f} nats, data {np.median(of_data):.0f} ({of_data.min():.0f} to {of_data.max():.0f})"
        inside = of_data.min() - 5 <= np.median(values) <= of_data.max() + 5
        told = [finding for finding in said if re.search("likelier|normalised density", finding)]
        require(inside or bool(told), f"{text}; said: {said}")
        return text + (f"; said: {told[0][:200]}" if told else "")

    unet = nd.UNetConfig(shape=(8, 8, 3), width=8, multipliers=(1, 2), num_blocks=1)
    flat = lambda d: lambda count, seed: _clusters(count, seed, d)
    loose = {"max_gradient_norm": 10.0}
    return [
        Input("inner product, 2 dimensions, 200 steps", lambda: sampled(flat(2), "inner_product", 200)),
        Input("inner product, 12 dimensions, 300 steps", lambda: sampled(flat(12), "inner_product", 300)),
        Input("inner product, 40 dimensions, 200 steps", lambda: sampled(flat(40), "inner_product", 200)),
        Input("l2, 12 dimensions, 300 steps", lambda: sampled(flat(12), "l2", 300)),
        Input("denoiser, 12 dimensions, 300 steps", lambda: sampled(flat(12), "dae", 300)),
        Input("inner product, coloured pictures, 100 steps", lambda: sampled(
            _stripes, "inner_product", 100, unet, weighting="denoiser", **loose)),
        Input("l2, coloured pictures, 100 steps", lambda: sampled(_stripes, "l2", 100, unet, weighting="denoiser", **loose)),
        Input("the default, coloured pictures, 100 steps", lambda: sampled(_stripes, None, 100, unet, **loose)),
    ]  # fmt: skip


def notebooks() -> list[Input]:
    """Notebooks as they are shipped."""

    def sound(path):
        source = path.read_text(encoding="utf-8")
        modules = [node.module or "" for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
        modules += [
            alias.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import) for alias in node.names
        ]
        private = [m for m in modules if re.search(r"(^|\.)_", m)]
        require(not private, f"imports {private}")
        executed = json.loads((path.parent / "executed" / f"{path.stem}.ipynb").read_text(encoding="utf-8"))
        outputs = [out for cell in executed["cells"] for out in cell.get("outputs", [])]
        text = json.dumps(outputs)
        require(bool(outputs), "was not executed")
        require(not any(out["output_type"] == "error" for out in outputs), "ended in an error")
        bars = re.findall(r"\d+%\|[^|]*\||\d+\.?\d*(?:it/s|s/it)", text)
        require(not bars, f"holds progress bars: {bars[:1]}")
        return f"{len(outputs)} outputs"

    # In a checkout only: the package does not ship them.
    return [Input(path.stem, lambda p=path: sound(p)) for path in sorted((ROOT / "notebooks").glob("0*.py"))]


PROGRAM = """
import jax, jax.numpy as jnp, numpy as np, json
import numpyro_diffusion as nd
x = np.random.default_rng(0).normal(size=(64, 2)).astype(np.float32) / 3
ring, bar = nd.load_pretrained("ring"), nd.load_pretrained("bar")
cubes = nd.load_pretrained("cubes_16").given([0.4, 0.4])
image = np.random.default_rng(1).uniform(-1, 1, size=(2, 16, 16, 3)).astype(np.float32)
run = nd.anneal(jax.random.key(0), ring * bar, nd.HMC(), num_chains=300, progress_bar=False)
print(json.dumps({
    "log_prob": np.asarray((ring * bar).log_prob(x, 0.3)).tolist(),
    "score": np.asarray(ring.score(x, 0.5)).ravel().tolist(),
    "image": np.asarray(cubes.log_prob(image, 0.5)).tolist(),
    "image score": np.asarray(cubes.score(image, 0.5)).ravel()[:100].tolist(),
    "log_evidence": [run.log_evidence, run.log_evidence_error],
}))
"""


def _elsewhere(flags: str, **environment) -> dict:
    # Programs of one instruction set must not be found by another.
    environment |= {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    return json.loads(fresh(PROGRAM, XLA_FLAGS=f"--xla_llvm_disable_expensive_passes=true {flags}", **environment).text)


def processors() -> list[Input]:
    """The same numbers under other instruction sets and numbers of threads."""
    known = {}

    def same(flags, **environment):
        if not known:
            known.update(_elsewhere(""))
        found = _elsewhere(flags, **environment)
        worst = {}
        for name in set(found) - {"log_evidence"}:
            a, b = np.array(found[name]), np.array(known[name])
            worst[name] = float(np.max(np.abs(a - b)) / max(1.0, np.abs(b).max()))
        require(max(worst.values()) < 1e-3, f"off by {worst}")
        value, error = found["log_evidence"]
        require(abs(value + 0.471) < 5 * error, f"log evidence {value:.3f} +- {error:.3f} for -.471")
        return f"off by {max(worst.values()):.0e} at most, log evidence {value:.3f} +- {error:.3f}"

    single = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    one = "--xla_cpu_multi_thread_eigen=false"
    return [
        Input("SSE4_2", lambda: same("--xla_cpu_max_isa=SSE4_2")),
        Input("AVX", lambda: same("--xla_cpu_max_isa=AVX")),
        Input("AVX2", lambda: same("--xla_cpu_max_isa=AVX2")),
        Input("one thread", lambda: same(one, **single)),
        Input("SSE4_2 on one thread", lambda: same(f"--xla_cpu_max_isa=SSE4_2 {one}", **single)),
    ]
