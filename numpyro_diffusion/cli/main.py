"""Commands: `doctor | demo | cubes | tapestry | scenes | sculpt | flows | train | distil | sample | check | bench`.

Arguments are checked before work begins, output files before hours are spent on them. See `console` for errors.
"""

from __future__ import annotations

import sys
import time
import warnings
from functools import partial
from pathlib import Path

import click
import jax
import numpy as np

import numpyro_diffusion as nd

from ..checks.text import LONGEST_NAME, check_name, printable
from ..diagnose.plot_style import pyplot
from ..diagnose.summary import summary
from ..disk import arrays as files
from ..errors import DiagnosticWarning, InterruptWarning, ParameterError, ScoreOnlyError
from . import cubes as demo_cubes
from . import demo as demonstration
from . import distillation, options, pictures, sculpting, tapestries
from . import doctor as checkup
from . import flows as demo_flows
from . import scenes as demo_scenes
from .console import Commands, echo, interrupts, one_line
from .examples import epilog
from .models import SAMPLERS, Request, asks_for_models, load_model, model_files
from .training import trained_file


@click.group(
    cls=Commands, context_settings={"help_option_names": ["-h", "--help"]},
    epilog=epilog(["doctor", "demo", "sample"]),
)  # fmt: skip
@click.version_option(nd.__version__, prog_name="numpyro-diffusion")
def main() -> None:
    """Diffusion models as densities: train, compose, anneal, diagnose."""


@main.command()
@click.pass_context
def doctor(context) -> None:
    """Say what is installed and where it computes, and check known answers, in about a minute."""
    if not checkup.run(echo):
        context.exit(1)


@main.command()
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder for results.")
@options.chains(10, 1000, "Chains per planar problem.")
@options.seed
def demo(output, num_chains, seed) -> None:
    """Compose and sample the pretrained densities: a table, pictures, and a check on real digits."""
    demonstration.run(output, seed=seed, num_chains=num_chains, echo=echo)


@main.command()
@options.output(".png", "Picture")
@click.option("--num-cubes", type=click.IntRange(1, 5), default=5, show_default=True, help="Cubes asked for.")
@click.option("--size", type=click.Choice(["16", "32"]), default="16", show_default=True, help="Pixels of a side.")
@click.option("--images", type=click.IntRange(1, 64), default=8, show_default=True, help="Images of each sampler.")
@options.seed
@options.force
def cubes(output, num_cubes, size, images, seed, force) -> None:
    """Draw cubes at requested places, by reverse diffusion and by HMC side by side: a picture."""
    _draw(output, force, demo_cubes.run(num_cubes=num_cubes, num_images=images, seed=seed, size=int(size)))


@main.command()
@options.output(".png", "Picture")
@click.option("--side", type=click.IntRange(1, 4), default=2, show_default=True, help="Windows along a side.")
@click.option("--images", type=click.IntRange(1, 16), default=2, show_default=True, help="Canvases of each sampler.")
@options.seed
@options.force
def tapestry(output, side, images, seed, force) -> None:
    """Draw a canvas of many windows with cubes at requested places, by reverse diffusion and by HMC: a picture."""
    _draw(output, force, tapestries.run(side=side, num_images=images, seed=seed), side**2, "windows")


def _draw(output: Path, force: bool, found, judged: int = 1, what: str = "images") -> None:
    """Write the picture of (places, runs, shares), anew after each sampler; so much is judged in each image."""
    files.check_writable(output, force=force)
    # A kill leaves the rows so far, under a name of their own: the same command then runs as it did.
    partial = files.check_writable(output.with_name(f"{output.stem}.partial{output.suffix}"), force=True)
    pyplot()  # before the minutes of sampling
    picture = b""
    for places, runs, shares in found:
        name, run = list(runs.items())[-1]
        count = judged * len(run.samples)
        echo(f"{name}: {shares[name]:.0%} of {count} {what} right, {run.evaluations_per_chain} evaluations each")
        picture = pictures.cubes(places, runs, shares)
        files.write(partial, picture)
    files.write(output, picture)
    partial.unlink()
    echo(f"{output}: written")


@main.command()
@click.option("--prompt", required=True, help="""What to show: '"a cube" AND ("sand" OR "grass") AND NOT "sunny"'.""")
@options.model("A density that knows captions; one lies in a clone.", required=False)
@options.output(".png", "Picture")
@click.option("--images", type=click.IntRange(1, 64), default=8, show_default=True, help="Images of each sampler.")
@options.seed
@options.force
def scenes(prompt, model, output, images, seed, force) -> None:
    """Draw what a prompt asks for, by reverse diffusion and by HMC side by side: a picture."""
    target = demo_scenes.target(prompt, model)
    files.check_apart(output=output, **model_files(model))
    files.check_writable(output, force=force)
    pyplot()  # before the minutes of sampling
    echo(f"{target!r}")
    runs, shares = {}, {}
    for name, run, share in demo_scenes.run(prompt, target, num_images=images, seed=seed):
        runs[name], judged = run, "" if share is None else f"{share:.0%} of {images} images right, "
        shares |= {} if share is None else {name: share}
        echo(f"{name}: {judged}{run.evaluations_per_chain} evaluations each")
    files.write(output, pictures.scenes(prompt, runs, shares))
    echo(f"{output}: written")


@main.command()
@options.data("Array [n, *event_shape], floating point .npy, or a .csv table.")
@options.output(".safetensors", "Trained density")
@options.steps
@options.batch_size
@click.option("--width", type=options.count(), default=128, show_default=True, help="Width of the network.")
@click.option("--score", is_flag=True, help="Train a score-only model: cheaper, but without a log density.")
@click.option("--uncalibrated", is_flag=True, help="Train as Du et al. (2023), without known normalisers.")
@click.option("--name", help="Name in formulas; the output file's by default.")
@options.checkpoint
@options.seed
@options.force
def train(data, output, name, checkpoint, seed, force, **how) -> None:
    """Train a density on your own data."""
    files.check_apart(output=output, data=data, checkpoint=checkpoint)
    files.check_writable(output, force=force)
    check_name(name, "--name")
    if how["score"] and how["uncalibrated"]:
        raise ParameterError("--uncalibrated is about energies, and a score has no normaliser. Drop it, or --score.")
    x = files.read_array(data)
    echo(f"{len(x) if x.ndim else 0} points of shape {x.shape[1:]} from {data}")
    training = nd.TrainingConfig(num_steps=how["steps"], batch_size=how["batch_size"])
    fit = partial(
        nd.fit,
        jax.random.key(seed),
        x,
        model="score" if how["score"] else "energy",
        calibrated=not how["uncalibrated"],
        network=nd.NetworkConfig(width=how["width"]),
        training=training,
        name=name or printable(output.stem)[:LONGEST_NAME],
        checkpoint_path=checkpoint,
        progress_bar=sys.stderr.isatty(),
    )
    card = {"script": "numpyro-diffusion train", "data": data.name, "num_points": len(x), "seed": seed}
    _, seconds = trained_file(fit, output, training, checkpoint, card)
    echo(f"{output}: trained in {seconds} s. Sample it: numpyro-diffusion sample --model {output} --output x.npy")


@main.command()
@options.model("The teacher, a score-only model: a file, or a name.")
@options.data("Array [n, *event_shape], .npy or .csv; the teacher's samples if none.", required=False)
@options.output(".safetensors", "Calibrated energy density")
@options.steps
@options.batch_size
@click.option("--report", is_flag=True, help="Compare with the teacher, on a tenth of the data that is held out.")
@click.option("--name", help="Name in formulas; the output file's by default.")
@options.checkpoint
@options.seed
@options.force
def distil(model, data, output, report, name, checkpoint, seed, force, **how) -> None:
    """Make a calibrated energy density of a score-only model."""
    files.check_apart(output=output, data=data, checkpoint=checkpoint, **model_files(model))
    files.check_writable(output, force=force)
    check_name(name, "--name")
    training = nd.TrainingConfig(num_steps=how["steps"], batch_size=how["batch_size"])
    x = None if data is None else files.read_array(data)
    distillation.run(
        model, x, output, training,
        name=name or printable(output.stem)[:LONGEST_NAME], checkpoint=checkpoint, seed=seed, report=report, echo=echo,
    )  # fmt: skip


@main.command()
@asks_for_models
@options.chains(1, 1000, "Samples to draw.")
@click.option("--kernel", type=click.Choice(list(SAMPLERS)), default="hmc", show_default=True)
@options.output(".npy", "Samples [num_chains, *event_shape]")
@options.checkpoint
@options.seed
@options.force
def sample(num_chains, kernel, output, checkpoint, seed, force, **asked) -> None:
    """Sample a density, or a composition of several, and say whether to trust the samples."""
    request = Request(**asked)
    files.check_apart(output=output, checkpoint=checkpoint, **request.files())
    files.check_writable(output, force=force)
    density = request.density()
    with interrupts():
        run = request.anneal(
            jax.random.key(seed), density, kernel,
            num_chains=num_chains, checkpoint_path=checkpoint, progress_bar=sys.stderr.isatty(),
        )  # fmt: skip
    if not run.is_complete:
        again = "The same command goes on." if checkpoint else "With --checkpoint FILE runs can be resumed."
        raise click.ClickException(f"interrupted at t = {run.levels[-1]:.3g}; {output} is not written. {again}")
    echo(summary(run))
    files.write_array(output, run.samples)
    echo(f"{output}: {run.samples.shape[0]} samples of shape {run.samples.shape[1:]}")


@main.command()
@asks_for_models
@options.chains(2, 500, "Chains per sampler.")
@options.seed
def bench(num_chains, seed, **asked) -> None:
    """All samplers side by side: gradient evaluations, seconds, acceptance, log evidence."""
    request = Request(**asked)
    density = request.density()
    echo(f"{density!r}, {num_chains} chains; seconds are those of a second run, pilot included\n")
    echo(f"{'sampler':<8} {'levels':>6} {'evals':>6} {'seconds':>8} {'acceptance':>10} {'ESS':>5} {'log evidence':>18}")
    for name in SAMPLERS:
        echo(f"{name:<8} {_bench_row(request, density, name, num_chains, seed)}")


@main.command()
@options.model("A density: a file, or a pretrained one.")
@options.data("Array [n, *event_shape] of what it should model, .npy or .csv.")
@click.option("--output", type=options.File(".png"), help="Picture of the report, .png.")
@click.option("--num-points", type=options.count(2), help="Noised points at each level; by default few for images.")
@options.seed
@options.force
def check(model, data, output, num_points, seed, force) -> None:
    """Check a model on data: how well it predicts noise, by level, and what is wrong where it does not."""
    files.check_apart(output=output, data=data, **model_files(model))
    if output is not None:
        files.check_writable(output, force=force)
        pyplot()  # before the work
    density = load_model(model)
    report = nd.check_model(density, files.read_array(data), rng_key=jax.random.key(seed), num_points=num_points)
    echo(report)
    if output is not None:
        files.write(output, pictures.png(report.plot()))
        echo(f"{output}: written")


@main.command()
@options.output(".png", "Picture")
@click.option("--side", type=click.IntRange(4, 64), default=32, show_default=True, help="Cells of a side of the grid.")
@click.option("--num-steps", type=options.count(1), default=2000, show_default=True, help="Steps of each training.")
@options.seed
@options.force
def flows(output, side, num_steps, seed, force) -> None:
    """Train two flows on a grid and sample what they compose to, in three ways: a table and heat maps."""
    files.check_writable(output, force=force)
    pyplot()  # before the work
    demo_flows.run(output, side=side, num_steps=num_steps, seed=seed, echo=echo)


@main.command()
@options.output(".png", "Picture")
@options.chains(10, 2000, "Samples of each density.")
@options.seed
@options.force
def sculpt(output, num_chains, seed, force) -> None:
    """Sculpt three overlapping discs by a tree of answers, and sample its leaves: a table and heat maps."""
    files.check_writable(output, force=force)
    pyplot()  # before the work
    sculpting.run(output, num_chains=num_chains, seed=seed, echo=echo)


def _bench_row(request: Request, density, name, num_chains, seed) -> str:
    seconds, run = 0.0, None
    try:
        for action in ("ignore", "default"):
            start = time.perf_counter()
            # Of the first, which compiles, nothing is told.
            with warnings.catch_warnings():
                warnings.simplefilter(action, DiagnosticWarning)
                warnings.simplefilter("error", InterruptWarning)
                run = request.anneal(jax.random.key(seed), density, name, num_chains=num_chains, progress_bar=False)
            jax.block_until_ready(run.samples)
            seconds = time.perf_counter() - start
    except ScoreOnlyError as error:
        return one_line(error)
    assert run is not None
    acceptance = f"{np.nanmean(run.stats['acceptance_rate']):.2f}" if run.has_acceptance else "-"
    defined = np.isfinite(run.log_evidence)
    least = f"{np.min(run.stats['ess']):.0%}" if defined else "-"
    evidence = f"{run.log_evidence:.3f} +- {run.log_evidence_error:.3f}" if defined else "-"
    cost = f"{len(run.levels):>6} {run.evaluations_per_chain:>6} {seconds:>8.2f}"
    return f"{cost} {acceptance:>10} {least:>5} {evidence:>18}"
