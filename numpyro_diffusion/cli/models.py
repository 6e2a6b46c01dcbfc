"""The densities and samplers that a command asks for: trained models by file or name, composed, and how to draw."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

import numpyro_diffusion as nd

from ..density.density import Density
from ..errors import ParameterError
from .options import Model, count

SAMPLERS: dict[str, Callable[..., Any]] = {
    "hmc": nd.HMC, "mala": nd.MALA, "uhmc": nd.UHMC, "ula": nd.ULA, "reverse": lambda step_size: nd.Reverse(),
}  # fmt: skip
OPERATORS: dict[str, Callable[..., Density]] = {
    "product": nd.product,
    "mixture": nd.mixture,
    "negation": nd.negation,
    "harmonic-mean": nd.harmonic_mean,
    "contrast": nd.contrast,
}


class Request(NamedTuple):
    """What `asks_for_models` has asked for."""

    models: tuple[str, ...]
    compose: str | None
    weights: tuple[float, ...]
    alpha: float | None
    floor: float | None
    levels: int | None
    steps: int
    step_size: float | None

    def density(self) -> Density:
        """The models, composed."""
        return compose([load_model(name) for name in self.models], self.compose, self.weights, self.alpha, self.floor)

    def files(self) -> dict[str, str]:
        """Files among the models, by what they are."""
        return model_files(*self.models)

    def anneal(self, key, density: Density, sampler: str, **settings) -> nd.AnnealedRun:
        """A run of one of `SAMPLERS`."""
        kernel = SAMPLERS[sampler](step_size=self.step_size)
        return nd.anneal(key, density, kernel, num_steps=self.steps, levels=self.levels, **settings)


def asks_for_models(command):
    """Decorator: a command with the options that make a `Request`."""
    options = [
        click.option(
            "--model", "models", type=Model(), multiple=True, required=True, metavar="FILE|NAME",
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
        click.option("--steps", type=count(), default=2, show_default=True, help="Kernel steps per level."),
        click.option("--step-size", type=float, help="Step size at every level; tuned if not given."),
    ]  # fmt: skip
    return functools.reduce(lambda decorated, option: option(decorated), reversed(options), command)


def model_files(*models: str | None) -> dict[str, str]:
    """Those models that are files, by what `check_apart` should call them."""
    return {f"model {name}": name for name in models if name is not None and Path(name).is_file()}


def load_model(name: str) -> Density:
    """The density in the file `name` (CheckpointError if there is none in it), or the pretrained one of that name."""
    known = nd.list_pretrained()
    if name in known and not Path(name).is_file():
        return nd.load_pretrained(name)
    if not Path(name).exists():
        near = difflib.get_close_matches(name, known, 1)
        meant = f" Did you mean {near[0]}?" if near else ""
        raise ParameterError(
            f"there is no file {name}, and no pretrained density of that name: {', '.join(known)}.{meant}"
        )
    return nd.load(name)


def compose(models: Sequence[Density], operator: str | None, weights: Sequence[float], alpha, floor) -> Density:
    """The models under one of `OPERATORS`; one stands for itself. ParameterError for what does not go together."""
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
