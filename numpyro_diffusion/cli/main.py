"""The command line: `numpyro-diffusion demo | train | sample | bench`.

Arguments are checked before work begins, output files before hours are spent on them. See `console` for errors.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import jax
import numpy as np

import numpyro_diffusion as nd

from ..checks.text import LONGEST_NAME, check_name, printable
from ..density.density import Density
from ..diagnose.summary import summary
from ..disk import arrays as files
from ..errors import ParameterError, ScoreOnlyError
from . import cubes as demo_cubes
from . import demo as demonstration
from .console import Commands, echo

#: Most chains, steps or points of a batch.
MOST = 10**8
KERNELS: dict[str, Callable[..., Any]] = {"hmc": nd.HMC, "mala": nd.MALA, "uhmc": nd.UHMC, "ula": nd.ULA}
OPERATORS: dict[str, Callable[..., Density]] = {
    "product": nd.product,
    "mixture": nd.mixture,
    "negation": nd.negation,
    "harmonic-mean": nd.harmonic_mean,
    "contrast": nd.contrast,
}


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(nd.__version__, prog_name="numpyro-diffusion")
def main() -> None:
    """Diffusion models as densities: train, compose, anneal, diagnose."""


_seed = click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Random seed.")
_force = click.option("--force", is_flag=True, help="Replace the output file if it exists.")


def _model_options(command):
    options = [
        click.option(
            "--model", "models", multiple=True, required=True, metavar="FILE|NAME",
            help="Trained density: a file, or the name of a pretrained one. Repeat to compose.",
        ),
        click.option("--compose", type=click.Choice(list(OPERATORS)), help="How to compose several models."),
        click.option(
            "--weight", "weights", type=float, multiple=True, metavar="W",
            help="Once per model: exponents of a product, weights of the others.",
        ),
        click.option("--alpha", type=float, help="Strength of a negation, weight of a mean or contrast; 0.5."),
        click.option("--floor", type=float, help="Floor of a negation: 0.01 if calibrated, 0 as in the paper."),
        click.option("--levels", type=click.IntRange(2, 10_000), help="Noise levels; placed by a pilot if not given."),
        click.option(
            "--steps", type=click.IntRange(1, MOST), default=2, show_default=True, help="Kernel steps per level."
        ),
        click.option("--step-size", type=float, help="Step size at every level; tuned if not given."),
    ]  # fmt: skip
    return functools.reduce(lambda decorated, option: option(decorated), reversed(options), command)


def load_model(name: str) -> Density:
    """The density in the file `name`, or the pretrained one of that name.

    Raises:
        CheckpointError: if the file cannot be read as one.
        ParameterError: if there is neither.
    """
    known = nd.list_pretrained()
    if name in known and not Path(name).is_file():
        return nd.load_pretrained(name)
    if not Path(name).exists():
        raise ParameterError(f"there is no file {name}, and no pretrained density of that name: {', '.join(known)}.")
    return nd.load(name)


def compose(models: Sequence[Density], operator: str | None, weights: Sequence[float], alpha, floor) -> Density:
    """The models under one of `OPERATORS`; a single model stands for itself.

    Raises:
        ParameterError: if models, operator and settings do not go together.
    """
    if operator is None:
        if len(models) > 1:
            raise ParameterError(f"{len(models)} models need an operator: --compose {' | '.join(OPERATORS)}.")
        if weights or alpha is not None or floor is not None:
            raise ParameterError("--weight, --alpha and --floor belong to an operator: add --compose.")
        return models[0]
    pair = operator in ("negation", "harmonic-mean", "contrast")
    if pair and len(models) < 2 or operator == "negation" and len(models) > 2:
        count = "two models" if operator == "negation" else "at least two models"
        raise ParameterError(f"a {operator} takes {count}; got {len(models)}.")
    if operator == "negation" and weights:
        raise ParameterError("a negation takes --alpha and --floor, not --weight.")
    if not pair and alpha is not None:
        raise ParameterError(f"a {operator} takes --weight, once per model, not --alpha.")
    if operator != "negation" and floor is not None:
        raise ParameterError(f"a {operator} takes no --floor.")
    settings: dict[str, Any] = {} if alpha is None else {"alpha": alpha}
    if weights:
        settings["exponents" if operator == "product" else "weights"] = list(weights)
    if operator == "negation":
        # Without a floor the negation of a calibrated density has no finite mass at low noise.
        calibrated = all(model.is_calibrated and model.has_log_density for model in models)
        settings["floor"] = floor if floor is not None else 0.01 if calibrated else 0.0
    return OPERATORS[operator](*models, **settings)


def _composed(names, operator, weights, alpha, floor):
    return compose([load_model(name) for name in names], operator, weights, alpha, floor)


def _files_of(models) -> dict[str, str]:
    return {f"model {name}": name for name in models if Path(name).is_file()}


def _kernel(name, step_size):
    return nd.Reverse() if name == "reverse" else KERNELS[name](step_size=step_size)


@main.command()
@click.option(
    "--output", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder for the results."
)
@click.option(
    "--num-chains", type=click.IntRange(10, MOST), default=1000, show_default=True, help="Chains per planar problem."
)
@_seed
def demo(output, num_chains, seed) -> None:
    """Compose and sample the pretrained densities: a table, pictures, and a check on real digits."""
    demonstration.run(output, seed=seed, num_chains=num_chains, echo=echo)


@main.command()
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Picture, .png.")
@click.option("--num-cubes", type=click.IntRange(1, 5), default=5, show_default=True, help="Cubes asked for.")
@click.option("--size", type=click.Choice(["16", "32"]), default="16", show_default=True, help="Pixels of a side.")
@click.option("--images", type=click.IntRange(1, 64), default=8, show_default=True, help="Images of each sampler.")
@_seed
@_force
def cubes(output, num_cubes, size, images, seed, force) -> None:
    """Draw cubes at requested places, by reverse diffusion and by HMC side by side: a picture."""
    files.check_writable(output, force=force)
    # A kill leaves the rows so far, under a name of their own: the same command then runs as it did.
    partial = files.check_writable(output.with_name(f"{output.stem}.partial{output.suffix}"), force=True)
    demo_cubes.require_matplotlib()
    pictures: list[bytes] = []

    def told(places, runs, shares):
        name, run = list(runs.items())[-1]
        echo(f"{name}: {shares[name]:.0%} of {images} images right, {run.evaluations_per_chain} evaluations each")
        pictures.append(demo_cubes.picture(places, runs, shares))
        files.write(partial, pictures[-1])

    demo_cubes.run(num_cubes=num_cubes, num_images=images, seed=seed, size=int(size), progress_bar=True, told=told)
    files.write(output, pictures[-1])
    partial.unlink()
    echo(f"{output}: written")


@main.command()
@click.option(
    "--data", type=click.Path(path_type=Path), required=True, help="Array [n, *event_shape], floating point .npy."
)
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Trained density, .safetensors.")
@click.option("--steps", type=click.IntRange(1, MOST), default=10_000, show_default=True, help="Optimiser steps.")
@click.option("--batch-size", type=click.IntRange(1, MOST), default=512, show_default=True)
@click.option("--width", type=click.IntRange(1, MOST), default=128, show_default=True, help="Width of the network.")
@click.option("--score", is_flag=True, help="Train a score-only model: cheaper, but without a log density.")
@click.option("--uncalibrated", is_flag=True, help="Train as Du et al. (2023), without known normalisers.")
@click.option("--name", help="Name in formulas; the output file's by default.")
@click.option("--checkpoint", type=click.Path(path_type=Path), help="Keep the run's state here, and resume from it.")
@_seed
@_force
def train(data, output, steps, batch_size, width, score, uncalibrated, name, checkpoint, seed, force) -> None:
    """Train a density on your own data."""
    files.check_apart(output=output, data=data, checkpoint=checkpoint)
    files.check_writable(output, force=force)
    check_name(name, "--name")
    x = files.read_array(data)
    echo(f"{len(x) if x.ndim else 0} points of shape {x.shape[1:]} from {data}")
    start = time.perf_counter()
    density = nd.fit(
        jax.random.key(seed),
        x,
        model="score" if score else "energy",
        calibrated=not uncalibrated,
        network=nd.NetworkConfig(width=width),
        training=nd.TrainingConfig(num_steps=steps, batch_size=batch_size),
        name=name or printable(output.stem)[:LONGEST_NAME],
        checkpoint_path=checkpoint,
        progress_bar=sys.stderr.isatty(),
    )
    seconds = round(time.perf_counter() - start, 1)
    card = {"script": "numpyro-diffusion train", "data": data.name, "num_points": len(x), "seed": seed}
    nd.save(density, output, card=card | {"num_steps": steps, "batch_size": batch_size, "training_seconds": seconds})
    echo(f"{output}: trained in {seconds} s. Sample it: numpyro-diffusion sample --model {output} --output x.npy")


@main.command()
@_model_options
@click.option("--num-chains", type=click.IntRange(1, MOST), default=1000, show_default=True, help="Samples to draw.")
@click.option("--kernel", type=click.Choice([*KERNELS, "reverse"]), default="hmc", show_default=True)
@click.option(
    "--output", type=click.Path(path_type=Path), required=True, help="Samples [num_chains, *event_shape], .npy."
)
@click.option(
    "--checkpoint", type=click.Path(path_type=Path), help="File to keep the run's state in, and to resume from."
)
@_seed
@_force
def sample(
    models,
    compose,
    weights,
    alpha,
    floor,
    levels,
    steps,
    step_size,
    num_chains,
    kernel,
    output,
    checkpoint,
    seed,
    force,
) -> None:
    """Sample a density, or a composition of several, and say whether to trust the samples."""
    files.check_apart(output=output, checkpoint=checkpoint, **_files_of(models))
    files.check_writable(output, force=force)
    density = _composed(models, compose, weights, alpha, floor)
    run = nd.anneal(
        jax.random.key(seed), density, _kernel(kernel, step_size), num_chains=num_chains, num_steps=steps,
        levels=levels, checkpoint_path=checkpoint, progress_bar=sys.stderr.isatty(),
    )  # fmt: skip
    if not run.is_complete:
        again = "The same command goes on." if checkpoint else "With --checkpoint FILE runs can be resumed."
        raise click.ClickException(f"interrupted at t = {run.levels[-1]:.3g}; {output} is not written. {again}")
    echo(summary(run))
    files.write_array(output, run.samples)
    echo(f"{output}: {run.samples.shape[0]} samples of shape {run.samples.shape[1:]}")


@main.command()
@_model_options
@click.option("--num-chains", type=click.IntRange(2, MOST), default=500, show_default=True, help="Chains per sampler.")
@_seed
def bench(models, compose, weights, alpha, floor, levels, steps, step_size, num_chains, seed) -> None:
    """All samplers side by side: gradient evaluations, seconds, acceptance, log evidence."""
    density = _composed(models, compose, weights, alpha, floor)
    echo(f"{density!r}, {num_chains} chains; seconds are those of a second run, pilot included\n")
    echo(f"{'sampler':<8} {'levels':>6} {'evals':>6} {'seconds':>8} {'acceptance':>10} {'ESS':>5} {'log evidence':>18}")
    for name in (*KERNELS, "reverse"):
        echo(f"{name:<8} {_bench_row(density, name, num_chains, levels, steps, step_size, seed)}")


def _bench_row(density, name, num_chains, levels, steps, step_size, seed) -> str:
    seconds, run = 0.0, None
    try:
        for key in jax.random.split(jax.random.key(seed)):
            start = time.perf_counter()
            run = nd.anneal(
                key, density, _kernel(name, step_size), num_chains=num_chains, num_steps=steps, levels=levels,
                progress_bar=False,
            )  # fmt: skip
            jax.block_until_ready(run.samples)
            seconds = time.perf_counter() - start
    except ScoreOnlyError:
        return "needs a log density, and there is only a score"
    except ParameterError as error:
        if density.has_log_density:
            raise
        return " ".join(str(error).split())
    assert run is not None
    acceptance = f"{np.nanmean(run.stats['acceptance_rate']):.2f}" if run.stats else "-"
    defined = np.isfinite(run.log_evidence)
    least = f"{np.min(run.stats['ess']):.0%}" if defined else "-"
    evidence = f"{run.log_evidence:.3f} +- {run.log_evidence_error:.3f}" if defined else "-"
    cost = f"{len(run.levels):>6} {run.evaluations_per_chain:>6} {seconds:>8.2f}"
    return f"{cost} {acceptance:>10} {least:>5} {evidence:>18}"


if __name__ == "__main__":
    main()
