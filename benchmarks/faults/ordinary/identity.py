"""What is run is what is there now: changes between two calls, for a second run and for a checkpoint of the first."""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from changing_models import SITUATIONS
from situations import BEFORE, PRIOR, Box, evidence, observe

import numpyro_diffusion as nd
from benchmarks.faults.ordinary.inputs import KEY, Input, require
from benchmarks.faults.ordinary.more_situations import MORE
from numpyro_diffusion.errors import CheckpointError

OTHER = r"belongs to a run with other .+ Repeat that run as it was, or choose another checkpoint_path"


@dataclasses.dataclass
class Story:
    """A run, a change, and the run again.

    Attributes:
        run: (checkpoint path or None) -> result, an array.
        change: Changes what the run depends on; `restore` puts back what others see.
        right: Whether a result is right now: text, or Wrong.
    """

    run: Callable[[Path | None], Any]
    change: Callable[[], None]
    right: Callable[[Any], str]
    restore: Callable[[], None] = lambda: None

    @functools.cached_property
    def told(self) -> dict[str, Any]:
        """Results: before and after the change, and with the checkpoint of before: an error or a result."""
        with tempfile.TemporaryDirectory(prefix="faults_") as folder:
            path = Path(folder) / "checkpoint"
            first = self.run(path)
            self.right(first)
            self.change()
            try:
                second = self.run(None)
                note = self.right(second)
                try:
                    third: Any = self.run(path)
                except CheckpointError as error:
                    third = CheckpointError(str(error).replace(folder, ""))
            finally:
                self.restore()
        return {"second": second, "note": note, "third": third}

    def again(self) -> str:
        """The second run is right."""
        return self.told["note"]

    def resumed(self) -> str:
        """The checkpoint is refused, or gives what a run without it gives."""
        second, third = self.told["second"], self.told["third"]
        if isinstance(third, CheckpointError):
            raise third
        require(
            np.array_equal(second.array, third.array), "the result of the checkpoint is neither refused nor that of now"
        )
        return "bit for bit what a run without it gives"


@dataclasses.dataclass
class Result:
    """An array that is the result, and what it came from."""

    array: np.ndarray
    run: Any


def near(run, truth: float) -> str:
    """log evidence within five errors of the truth."""
    found, error = run.log_evidence, run.log_evidence_error
    require(abs(found - truth) < 5 * max(error, 0.02), f"log evidence {found:.3f} +- {error:.3f} for {truth:.3f}")
    return f"log evidence {found:.3f} for {truth:.3f}"


def mcmc_of(call, path=None, **settings):
    """An annealed posterior of a situation's model."""
    model, args, kwargs = call()
    settings = {"num_chains": 400, "levels": 10, "metric": "frame", "kernel": nd.HMC(0.5)} | settings
    key = settings.pop("rng_key", KEY)
    mcmc = nd.AnnealedMCMC(model, checkpoint_path=path, progress_bar=False, **settings)
    mcmc.run(key, *args, **kwargs)
    return mcmc


def of_situation(make) -> Story:
    """The story of a situation."""
    it = make()

    def run(path):
        mcmc = mcmc_of(it.call, path)
        return Result(np.concatenate([np.ravel(a) for a in mcmc.get_samples().values()]), mcmc)

    return Story(run, it.change, lambda result: near(result.run, it.log_evidence()))


#: Settings of a run, before and after; the posterior stays.
SETTINGS: dict[str, tuple[dict, dict]] = {
    "random key": ({}, {"rng_key": jax.random.key(7)}),
    "step size": ({}, {"kernel": nd.HMC(0.4)}),
    "kernel": ({}, {"kernel": nd.MALA(0.3)}),
    "leapfrog steps": ({}, {"kernel": nd.HMC(0.5, num_integration_steps=2)}),
    "persistence": ({}, {"kernel": nd.HMC(0.5, persistence=0.5)}),
    "tuned steps": ({}, {"kernel": nd.HMC()}),
    "steps per level": ({}, {"num_steps": 3}),
    "number of levels": ({}, {"levels": 12}),
    "levels": ({}, {"levels": np.linspace(1, 0, 10)}),
    "resampling": ({}, {"resample_threshold": 0.9}),
    "metric": ({}, {"metric": "pilot"}),
    "number of chains": ({}, {"num_chains": 401}),
    "batches of chains": ({}, {"chain_batch_size": 100}),
    "view": ({}, {"view": "denoised"}),
    "view without scale": ({"view": "x"}, {"view": "scaled"}),
    "power of the likelihood": ({}, {"likelihood_power": lambda t: 1 - t}),
    "another power of one name": ({"likelihood_power": lambda t: 1 - t}, {"likelihood_power": lambda t: (1 - t) ** 2}),
}


def of_settings(before, after) -> Story:
    """The story of a setting."""
    held = Box(settings=before)

    def run(path):
        mcmc = mcmc_of(lambda: (observe, (BEFORE,), {}), path, **held.settings)
        return Result(np.asarray(mcmc.get_samples()["x"]), mcmc)

    return Story(run, lambda: held.__dict__.update(settings=after), lambda r: near(r.run, evidence(BEFORE)))


def of_version(name: str, holder) -> Story:
    """The story of another version of a package."""
    story, now = of_settings({}, {}), holder.__version__
    story.change = lambda: setattr(holder, "__version__", "99.1")
    story.restore = lambda: setattr(holder, "__version__", now)
    return story


def of_arguments(before, after) -> Story:
    """The story of an argument that changes its type alone."""
    held = Box(y=before)

    def run(path):
        mcmc = mcmc_of(lambda: (observe, (held.y,), {}), path)
        return Result(np.asarray(mcmc.get_samples()["x"]), mcmc)

    return Story(run, lambda: held.__dict__.update(y=after), lambda r: near(r.run, evidence(np.asarray(held.y, float))))


def of_names() -> Story:
    """The same prior by another name."""
    held = Box(prior=PRIOR)
    story = of_settings({}, {})
    call = lambda: (lambda: observe(BEFORE, prior=held.prior), (), {})

    def run(path):
        mcmc = mcmc_of(call, path)
        return Result(np.asarray(mcmc.get_samples()["x"]), mcmc)

    story.run = run
    story.change = lambda: held.__dict__.update(prior=nd.exact.GaussianMixture([[0.0]], [[[1.0]]], name="another"))
    return story


def stories() -> dict[str, Callable[[], Story]]:
    """What changes -> its story, models first."""
    from benchmarks.faults.ordinary.stories import MORE_STORIES

    return {
        **{name: functools.partial(of_situation, make) for name, make in (SITUATIONS | MORE).items()},
        **{name: functools.partial(of_settings, *pair) for name, pair in SETTINGS.items()},
        "version of this package": lambda: of_version("package", nd),
        "version of JAX": lambda: of_version("jax", jax),
        "data as integers of the same value": lambda: of_arguments(np.array([1.0, 2.0]), np.array([1, 2])),
        "data as single precision": lambda: of_arguments(BEFORE, BEFORE.astype(np.float32)),
        "data as a jax array": lambda: of_arguments(BEFORE, jax.numpy.asarray(BEFORE)),
        "name of the prior": of_names,
        **MORE_STORIES,
    }


@functools.cache
def story(name: str) -> Story:
    """A story, told once for both of its questions."""
    return stories()[name]()


def run_again() -> list[Input]:
    """After a change, the next run is right."""
    return [Input(name, lambda name=name: story(name).again()) for name in stories()]


def checkpoints() -> list[Input]:
    """After a change, the checkpoint of the run before is refused by name, or gives what is right now."""
    return [Input(name, lambda name=name: story(name).resumed(), OTHER) for name in stories()]
