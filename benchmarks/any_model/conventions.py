"""Wrong conventions, each named by `nd.check_model`, and right ones, none refused.

python benchmarks/any_model/conventions.py [--quick]
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

import numpyro_diffusion as nd
from benchmarks.any_model.networks import (
    COSINE,
    COSINE_STEPS,
    DDPM,
    EDM,
    FLOW,
    STEPS,
    Network,
    conventions,
    data_of,
    mixture,
    scans,
)  # fmt: skip
from benchmarks.table import RESULTS, arguments, measure
from numpyro_diffusion.datasets import planar

NAME = "any_model_conventions"
COLUMNS = ["named", "refused", "seconds"]
HEADER = """# Conventions of networks, told from their answers

`python benchmarks/any_model/conventions.py`. Networks are the exact predictions of a Gaussian mixture in the plane or of the shipped density of digits (d = 64), made as the first words say: `ddpm` (noise, 1,000 linear betas, told the index), `edm` (denoiser,
told sigma), `flow` (eps - x_0, told tau), `cosine` (velocity, told t), `digits` (as `ddpm`). Rows "wrong": the network follows another convention than the adapter was told, the one after the colon. `named`: the first finding of `nd.check_model` says which
(share of seeds); `refused`: there is a finding. Rows "right": nothing is wrong, so that `named` (a convention is) and `refused` (there is a finding of any kind) count false alarms. Row "poor": a network after 300 steps, of which findings should say that it predicts badly, and name no convention. Data: 600 points, or the 297 test scans. Each seed draws its own points and noise; the last two rows are sums over rows.
"""

#: What adapters are told, by base: (constructor, schedule, timesteps).
SAID: dict[str, tuple[Any, Any, Any]] = {
    "ddpm": (nd.from_noise_prediction, DDPM, "integer"),
    "edm": (nd.from_denoiser, EDM, "sigma"),
    "flow": (nd.from_flow, FLOW, "time"),
    "cosine": (nd.from_velocity, COSINE, "time"),
    "digits": (nd.from_noise_prediction, DDPM, "integer"),
}
#: What networks do, by base, if they do as adapters were told.
RIGHT: dict[str, dict] = {
    "ddpm": {"schedule": DDPM, "kind": "noise", "told": "index"},
    "edm": {"schedule": EDM, "kind": "denoiser", "told": "ratio"},
    "flow": {"schedule": FLOW, "kind": "flow", "told": "time"},
    "cosine": {"schedule": COSINE, "kind": "velocity", "told": "time"},
    "digits": {"schedule": DDPM, "kind": "noise", "told": "index"},
}
UNIT, BYTES = (0.5, 0.5), (127.5, 127.5)
#: Words of findings.
VELOCITY, NOISE, DENOISER, FLOWS, SCORE = (
    "like velocity",
    "like noise (epsilon)",
    "like data",
    "like flow",
    "like a score",
)
REVERSED, SIGN, IN_UNIT, IN_BYTES = "the other way", "sign is flipped", "2 * x - 1", "x / 127.5 - 1"
#: (base, what is wrong, conventions that differ, data's factor and shift, words of the finding).
WRONG: list[tuple[str, str, dict, tuple[float, float], list[str]]] = [
    ("ddpm", "velocity", {"kind": "velocity"}, (1, 0), [VELOCITY]),
    ("ddpm", "denoiser", {"kind": "denoiser"}, (1, 0), [DENOISER]),
    ("ddpm", "score", {"kind": "score"}, (1, 0), [SCORE]),
    ("ddpm", "noise times sigma", {"kind": "residual"}, (1, 0), ["noise times sigma"]),
    ("ddpm", "sign flipped", {"factor": -1.0}, (1, 0), [SIGN]),
    ("ddpm", "twice as large", {"factor": 2.0}, (1, 0), ["times as large"]),
    ("ddpm", "a tenth as large", {"factor": 0.1}, (1, 0), ["times as large"]),
    ("ddpm", "timesteps reversed", {"told": "reversed index"}, (1, 0), [REVERSED]),
    ("ddpm", "timesteps shifted by 50", {"told": "fifty late"}, (1, 0), ["shifted", "+50 steps"]),
    ("ddpm", "told t in [0, 1]", {"told": "time"}, (1, 0), ["told its time t"]),
    ("ddpm", "told sigma", {"told": "sigma"}, (1, 0), ["told sigma:"]),
    ("ddpm", "told log SNR", {"told": "log SNR"}, (1, 0), ["told the log SNR"]),
    ("ddpm", "data in [0, 1]", {}, UNIT, [IN_UNIT]),
    ("ddpm", "data in [0, 255]", {}, BYTES, [IN_BYTES]),
    ("ddpm", "input not scaled", {"schedule": nd.NoiseSchedule.from_log_snr(-2 * np.log(DDPM.levels_of_noise), "variance_exploding")},
     (1, 0), ["variance exploding"]),
    ("ddpm", "cosine betas", {"schedule": COSINE_STEPS}, (1, 0), ["another schedule"]),
    ("ddpm", "velocity, reversed", {"kind": "velocity", "told": "reversed index"}, (1, 0), [VELOCITY, REVERSED]),
    ("ddpm", "sign flipped, data in [0, 1]", {"factor": -1.0}, UNIT, [SIGN, IN_UNIT]),
    ("ddpm", "reversed, data in [0, 1]", {"told": "reversed index"}, UNIT, [REVERSED, IN_UNIT]),
    ("ddpm", "denoiser, told t", {"kind": "denoiser", "told": "time"}, (1, 0), [DENOISER, "told its time t"]),
    ("edm", "noise", {"kind": "noise"}, (1, 0), [NOISE]),
    ("edm", "score", {"kind": "score"}, (1, 0), [SCORE]),
    ("edm", "sign flipped", {"factor": -1.0}, (1, 0), [SIGN]),
    ("edm", "told log sigma", {"told": "log ratio"}, (1, 0), ["told log sigma"]),
    ("edm", "told log sigma / 4", {"told": "log ratio / 4"}, (1, 0), ["told log(sigma / alpha) / 4"]),
    ("edm", "told t in [0, 1]", {"told": "time"}, (1, 0), ["told its time t"]),
    ("edm", "input scaled", {"schedule": nd.NoiseSchedule.from_log_snr(lambda t: -2 * np.log(0.002) - 2 * t * np.log(80 / 0.002))},
     (1, 0), ["variance preserving"]),
    ("edm", "data in [0, 1]", {}, UNIT, [IN_UNIT]),
    ("edm", "noise, told log sigma", {"kind": "noise", "told": "log ratio"}, (1, 0), [NOISE, "told log sigma"]),
    ("flow", "noise", {"kind": "noise"}, (1, 0), [NOISE]),
    ("flow", "denoiser", {"kind": "denoiser"}, (1, 0), [DENOISER]),
    ("flow", "sign flipped", {"factor": -1.0}, (1, 0), [SIGN]),
    ("flow", "time reversed", {"told": "reversed"}, (1, 0), [REVERSED]),
    ("flow", "time reversed, sign flipped", {"told": "reversed", "factor": -1.0}, (1, 0), [REVERSED, SIGN]),
    ("flow", "told 1000 t", {"told": "thousand"}, (1, 0), ["told 1000 t"]),
    ("flow", "data in [0, 1]", {}, UNIT, [IN_UNIT]),
    ("cosine", "noise", {"kind": "noise"}, (1, 0), [NOISE]),
    ("cosine", "denoiser", {"kind": "denoiser"}, (1, 0), [DENOISER]),
    ("cosine", "sign flipped", {"factor": -1.0}, (1, 0), [SIGN]),
    ("cosine", "half as large", {"factor": 0.5}, (1, 0), ["times as large"]),
    ("cosine", "time reversed", {"told": "reversed"}, (1, 0), [REVERSED]),
    ("cosine", "told 1000 t", {"told": "thousand"}, (1, 0), ["told 1000 t"]),
    ("cosine", "told log SNR", {"told": "log SNR"}, (1, 0), ["told the log SNR"]),
    ("cosine", "noise, data in [0, 1]", {"kind": "noise"}, UNIT, [NOISE, IN_UNIT]),
    ("digits", "velocity", {"kind": "velocity"}, (1, 0), [VELOCITY]),
    ("digits", "sign flipped", {"factor": -1.0}, (1, 0), [SIGN]),
    ("digits", "timesteps reversed", {"told": "reversed index"}, (1, 0), [REVERSED]),
    ("digits", "told t in [0, 1]", {"told": "time"}, (1, 0), ["told its time t"]),
    ("digits", "data in [0, 1]", {}, UNIT, [IN_UNIT]),
    ("digits", "velocity, data in [0, 1]", {"kind": "velocity"}, UNIT, [VELOCITY, IN_UNIT]),
]  # fmt: skip


@functools.cache
def truth(base: str) -> nd.Density:
    return scans() if base == "digits" else mixture()


@functools.cache
def adapted(base: str, which: int | None) -> nd.Density:
    """A network of `WRONG`, or the right one for None, under the conventions of its base."""
    make, schedule, timesteps = SAID[base]
    other = {} if which is None else WRONG[which][2]
    return network_as(make, base, schedule, timesteps, RIGHT[base] | other, name=base)


def network_as(make, base: str, schedule, timesteps, follows: dict, name: str) -> nd.Density:
    """A network that `follows` conventions, as the adapter `make` is told of it."""
    network = Network(truth(base), follows["schedule"])
    weights = conventions(**{key: value for key, value in follows.items() if key != "schedule"})
    return make(network, truth(base).event_shape, schedule, timesteps=timesteps, parameters=weights, name=name)


def wrong(seed: int, which: int) -> dict:
    """Whether what is wrong is named."""
    base, _, _, (factor, shift), words = WRONG[which]
    report = nd.check_model(
        adapted(base, which), factor * data_of(truth(base), seed) + shift, rng_key=jax.random.key(seed)
    )
    first = report.findings[0] if report.findings else ""
    named = all(word in first for word in words)
    return {"named": named, "refused": bool(report.findings), "finding": "" if named else first}


def right(seed: int, density: Callable[[], nd.Density], data: Callable[[int], Any]) -> dict:
    """Whether there is an alarm where nothing is wrong."""
    report = nd.check_model(density(), data(seed), rng_key=jax.random.key(seed))
    text = " ".join(report.findings)
    return {"named": "would have the mean squared error" in text, "refused": bool(text), "finding": text}


def through_adapter(density: nd.Density) -> nd.Density:
    """A trained density as a network from elsewhere, so that all conventions are tried."""
    return nd.from_score(density.score, density.event_shape, density.schedule, name=repr(density))


@functools.cache
def trained(name: str) -> nd.Density:
    return through_adapter(nd.load_pretrained(name))


@functools.cache
def barely_trained() -> nd.Density:
    training = nd.TrainingConfig(num_steps=300, batch_size=256)
    density = nd.fit(jax.random.key(0), planar.sampler("ring"), model="score", training=training, progress_bar=False)
    return through_adapter(density)


def planar_data(name: str, seed: int) -> np.ndarray:
    return np.asarray(planar.sampler(name)(jax.random.key(100 + seed), 600))


def right_ones() -> Iterator[tuple[str, Callable[[], nd.Density], Callable[[int], Any]]]:
    """(name, density, data of a seed)."""
    for base in SAID:
        yield f"{base}, as it was told", functools.partial(adapted, base, None), functools.partial(data_of, truth(base))
    others = {
        "ddpm, blended": (nd.from_noise_prediction, DDPM, "blended", {}),
        "ddpm, velocity": (nd.from_velocity, DDPM, "fractional", {"kind": "velocity"}),
        "ddpm, denoiser": (nd.from_denoiser, DDPM, "integer", {"kind": "denoiser"}),
        "ddpm, score": (nd.from_score, DDPM, "integer", {"kind": "score"}),
        "ddpm, told an array from one": (nd.from_noise_prediction, DDPM, np.arange(1, STEPS + 1), {"told": "from one"}),
        "ddpm, read under cosine": (nd.from_noise_prediction, DDPM, "integer", {}),
        "cosine betas": (nd.from_noise_prediction, COSINE_STEPS, "integer", {"schedule": COSINE_STEPS}),
        "edm, noise, told log sigma": (nd.from_noise_prediction, EDM, "log_sigma", {"schedule": EDM, "told": "log ratio"}),
        "flow, denoiser, told 1000 t": (
            nd.from_denoiser, FLOW, lambda t: 1000 * FLOW.sigma(t), {"schedule": FLOW, "kind": "denoiser", "told": "thousand"},
        ),
        "cosine, noise": (nd.from_noise_prediction, COSINE, "time", {"schedule": COSINE, "told": "time"}),
    }  # fmt: skip
    for name, (make, schedule, timesteps, follows) in others.items():

        @functools.cache
        def density(make=make, schedule=schedule, timesteps=timesteps, follows=follows, name=name):
            found = network_as(make, "ddpm", schedule, timesteps, RIGHT["ddpm"] | follows, name="network")
            return found.with_schedule(nd.VariancePreserving.cosine(50.0)) if "read" in name else found

        yield name, density, functools.partial(data_of, truth("ddpm"))
    unit = RIGHT["ddpm"] | {"units": UNIT}
    make_unit = functools.partial(network_as, nd.from_noise_prediction, "ddpm", DDPM, "integer", unit, "network")
    yield (
        "ddpm, data and network in [0, 1]",
        functools.cache(make_unit),
        lambda seed: 0.5 * data_of(truth("ddpm"), seed) + 0.5,
    )
    for name in ("ring_score", "bar_score", "large_box_score", "left_column_score", "ring", "bar_paper"):
        target = name.partition("_")[0] if name.startswith(("ring", "bar")) else name.removesuffix("_score")
        yield f"trained, {name}", functools.partial(trained, name), functools.partial(planar_data, target)
    yield "closed form, mixture", mixture, functools.partial(data_of, truth("ddpm"))
    yield (
        "closed form, box",
        functools.cache(functools.partial(planar.exact, "bar")),
        functools.partial(planar_data, "bar"),
    )


def total(seed: int, kind: str) -> dict:
    """Over all rows of one kind, of those of this seed that there are."""
    path = RESULTS / f"{NAME}{'_quick' if options.quick else ''}.json"
    rows = {row: found[str(seed)] for row, found in json.loads(path.read_text()).items() if str(seed) in found}
    rows = {row: found for row, found in rows.items() if row.startswith(f"{kind}, ")}
    return {column: sum(found.get(column) or 0 for found in rows.values()) for column in COLUMNS[:2]} | {
        "rows": len(rows)
    }


if __name__ == "__main__":
    options = arguments(__doc__ or "")
    rows: list[tuple[str, Callable[[int], dict]]] = []
    for i, (base, what, *_) in enumerate(WRONG):
        rows.append((f"wrong, {base}: {what}", functools.partial(wrong, which=i)))
    for name, density, data in right_ones():
        rows.append((f"right, {name}", functools.partial(right, density=density, data=data)))
    # A poor model, about whose conventions nothing is to be said.
    poor = functools.partial(right, density=barely_trained, data=functools.partial(planar_data, "ring"))
    rows.append(("poor, trained for 300 steps", poor))
    for kind in ("wrong", "right"):
        rows.append((f"sum over rows: {kind}", functools.partial(total, kind=kind)))
    measure(NAME, options, rows, HEADER, [*COLUMNS[:2], "rows", COLUMNS[2]])
