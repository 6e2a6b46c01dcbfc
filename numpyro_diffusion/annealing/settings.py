"""The settings of an annealed run: checked once, with their defaults, and static where programs are compiled."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
from jax.sharding import Mesh

from ..density.abstract import gaussian_at
from ..density.axes import CosineAxes
from ..density.density import Density
from ..errors import ParameterError, check_integer, check_number
from .devices import checked_mesh, map_chains
from .frame import FRAMES
from .kernels import Kernel
from .memory import default_batch_size
from .reverse import Reverse

METRICS = ("frame", "pilot")
#: N times the variance of log Z that the default accuracy asks for: 0.05 nats with 1,000 chains.
DEFAULT_VARIANCE = 2.5
#: Conditional ESS between levels where steps are in the pilot's metric, as for posteriors. Reverse steps that such a
#: pilot chooses are worth more than what it would save by being coarse (`benchmarks/peers/mode_weights.py`).
POSTERIOR_ESS = 0.95
#: Dimension from which on weights are watched.
WATCHED_SIZE = 256


def _of_the_host(default) -> Any:
    # Two settings that differ in such fields alone are equal: other values compile nothing anew. Compiled programs must
    # therefore not read them.
    return dataclasses.field(default=default, compare=False)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a run does at every level, see `anneal`.

    Attributes:
        num_steps, frame, chain_batch_size, mesh: Of the compiled programs.
        weighted: Whether chains carry weights.
        num_chains, level_ess, resample_threshold, metric, predictor, num_pilot_chains, num_islands: Read on the host
            only.
        accuracy: The standard error of log Z that decides how many levels there are; None leaves that to `level_ess`.
    """

    num_steps: int = 2
    frame: str = "whitened"
    chain_batch_size: int | None = None
    mesh: Mesh | None = None
    weighted: bool = True
    num_chains: int = _of_the_host(1000)
    level_ess: float = _of_the_host(0.98)
    resample_threshold: float | None = _of_the_host(None)
    metric: str = _of_the_host("frame")
    predictor: bool | None = _of_the_host(None)
    num_pilot_chains: int | None = _of_the_host(None)
    num_islands: int = _of_the_host(1)
    accuracy: float | None = _of_the_host(None)

    @classmethod
    def of_effort(cls, levels, level_ess, num_steps, accuracy, num_chains, metric=METRICS[0]) -> dict[str, Any]:
        """What decides the effort, with its defaults: levels as given, as far apart as given, or by accuracy."""
        if levels is None and level_ess is None and accuracy is None and metric == "pilot":
            level_ess, num_steps = POSTERIOR_ESS, 1 if num_steps is None else num_steps
        if levels is not None or level_ess is not None:
            if accuracy is not None:
                other = "levels" if levels is not None else "level_ess"
                raise ParameterError(
                    f"accuracy decides how many levels there are; got {accuracy} beside {other}, which does so, too. "
                    "Leave one of them out."
                )
            given = {"level_ess": level_ess, "num_steps": num_steps}
            return {name: value for name, value in given.items() if value is not None}
        if accuracy is None:
            accuracy = math.sqrt(DEFAULT_VARIANCE / check_integer("num_chains", num_chains))
        check_number("accuracy", accuracy, 0.0, ends="(]", remedy="It is the standard error of log Z, in nats.")
        return {"accuracy": float(accuracy), "num_steps": 1 if num_steps is None else num_steps}

    @classmethod
    def checked(cls, **given) -> Settings:
        """Settings as a user gives them; ParameterError for values out of range, TypeError for a mesh that is none."""
        new = vars(cls(**given)).copy()
        # None is fine where it is the default.
        asked = [name for name, value in new.items() if value is not None or getattr(cls, name) is not None]
        for name in asked:
            if name in ("num_chains", "num_steps", "chain_batch_size", "num_pilot_chains", "num_islands"):
                new[name] = check_integer(name, new[name])
            if name in ("level_ess", "resample_threshold"):
                check_number(name, new[name], 0.0, 1.0)
                new[name] = float(new[name])
        if new["level_ess"] in (0.0, 1.0):
            raise ParameterError(f"level_ess must lie in (0, 1); got {new['level_ess']}.")
        for name, known in {"frame": FRAMES, "metric": METRICS, "predictor": (None, True, False)}.items():
            if new[name] not in known:
                raise ParameterError(f"{name} must be one of {known}; got {new[name]!r}.")
        if new["num_islands"] > 1 and (
            new["num_chains"] % new["num_islands"] or new["num_chains"] < 2 * new["num_islands"]
        ):
            raise ParameterError(
                f"num_islands must divide num_chains into islands of at least two chains; got {new['num_islands']} for "
                f"{new['num_chains']} chains."
            )
        new |= {"mesh": checked_mesh(new["mesh"], new["num_chains"])}
        return cls(**new)

    def suited(self, density: Density, kernel: Kernel | Reverse) -> Settings:
        """The settings for a density and a kernel: whether there are weights, and what reverse diffusion is."""
        if isinstance(kernel, Reverse):
            # A predictor before no steps, in x itself.
            itself = {"frame": "identity", "metric": "frame"}
            weighted = bool(kernel.weighted)
            return dataclasses.replace(self, num_steps=0, predictor=True, weighted=weighted, **itself)
        if self.metric == "pilot" and isinstance(jax.eval_shape(lambda: gaussian_at(density, 0.5)).axes, CosineAxes):
            raise ParameterError(
                f"metric 'pilot' learns a matrix [d, d], and {density!r} is one of images, d = "
                f"{math.prod(density.event_shape)}, whose frame keeps variances only. Use metric='frame'."
            )
        weighted = is_weighted(density, kernel)
        if weighted and self.watches(density) and (self.predictor or not density.has_log_density):
            weighted = False  # in so many dimensions weights of steps, or by a score alone, have to be asked for
        return dataclasses.replace(self, weighted=weighted)

    def in_pieces(self, density: Density, num_chains: int) -> Settings:
        """The settings with pieces that fit into memory, where none are asked for."""
        share = num_chains if self.mesh is None else num_chains // self.mesh.size
        return self.of_pieces(self.chain_batch_size or default_batch_size(density, share))

    def of_pieces(self, piece: int | None) -> Settings:
        """The settings with so many chains in a piece, None for all."""
        return dataclasses.replace(self, chain_batch_size=piece)

    @property
    def threshold(self) -> float:
        """The share of ESS below which to resample."""
        return 0.5 if self.resample_threshold is None else self.resample_threshold

    def watches(self, density: Density) -> bool:
        """Whether weights are given up where they collapse."""
        return self.resample_threshold is None and math.prod(density.event_shape) >= WATCHED_SIZE

    def identity(self) -> dict[str, Any]:
        """What decides the results, by name."""
        return {k: v for k, v in vars(self).items() if k not in ("mesh", "weighted", "chain_batch_size")}

    def map_chains(self, fn, shared, *arrays):
        """fn(shared, *values of one chain) for every chain, in pieces on the devices of the mesh."""
        return map_chains(fn, shared, *arrays, chain_batch_size=self.chain_batch_size, mesh=self.mesh)


def is_weighted(density: Density, kernel: Kernel) -> bool:
    """Whether chains can have weights: not where it is unknown what log densities gain, or the ratio of a step."""
    return density.has_increments and kernel.has_ratio and (density.has_log_density or kernel.num_nodes is not None)
