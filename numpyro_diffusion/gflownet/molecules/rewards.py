r"""Rewards of molecules: drug-likeness, ease of synthesis, predicted binding to soluble epoxide hydrolase.

The reward of a derivation d of molecule m, one of n(m) (see `multiplicity`), is

.. math:: R(d) = \max(r(m), 10^{-4}) \, n(m)^{-1 / \beta},

so that R^beta shares r^beta among the derivations of m, and a flow over derivations that is trained perfectly for
R^beta draws m in proportion to r(m)^beta. The scores r:

- QED, `qed`: quantitative estimate of drug-likeness, in (0, 1) (Bickerton et al. 2012).
- SA, `sa`: (10 - s) / 9, s from 1 to 10 the synthetic accessibility of Ertl and Schuffenhauer (2009); 1 is easiest.
- sEH, a `SehProxy`: its value / 8 (Bengio et al. 2021); good molecules reach about 1, some more.
- any function of an rdkit molecule that returns a finite number.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...checks.fields import check_instance
from ...checks.text import check_name, shown
from ...errors import ArgumentTypeError, ParameterError, check_number
from ...program import fingerprint
from ...pytree import register
from ..reward import on_host, on_host_errors
from .assembly import molecule_of, num_derivations
from .environment import Derivation, MoleculeEnvironment
from .graphs import MAX_DEGREE, NUM_FEATURES, MoleculeGraph, graph_of
from .library import parsed, rdkit, sa_scorer
from .proxy import SehProxy

#: What a score is raised to at least, so that no reward is zero or negative.
LOWEST = 1e-4
#: The proxy's value that makes a score of 1.
SEH_SCALE = 8.0
#: Molecules whose scores and numbers of derivations are kept.
_KEPT = 1 << 18

#: A number r of an rdkit molecule, or the sEH proxy.
Score = Callable[[Any], float] | SehProxy


def qed(molecule) -> float:
    """Quantitative estimate of drug-likeness of an rdkit molecule, in (0, 1)."""
    return float(rdkit("Chem.QED").qed(_checked("qed", molecule)))


def sa(molecule) -> float:
    """Ease of synthesis of an rdkit molecule, in [0, 1]."""
    return (10.0 - float(sa_scorer().calculateScore(_checked("sa", molecule)))) / 9.0


def _checked(name: str, molecule):
    """An rdkit molecule, or ArgumentTypeError."""
    if not isinstance(molecule, rdkit("Chem").Mol):
        raise ArgumentTypeError(
            f"{name} takes an rdkit molecule; got {shown(molecule)}. Score SMILES by scores({name}, [...])."
        )
    return molecule


def scores(score: Score, smiles: Sequence[str]) -> np.ndarray:
    """The score r of molecules given as SMILES, [N]; not raised to any power, and not cut at `LOWEST`.

    Raises:
        ParameterError: for text that is no molecule, and scores that are not finite.
        ArgumentTypeError: for one text in place of a list.
        MissingLibraryError: where rdkit is not installed.
    """
    if isinstance(smiles, str):
        raise ArgumentTypeError(f"smiles must be a list of SMILES; got the text {smiles!r}. Give [{smiles!r}].")
    if isinstance(score, SehProxy):
        return score.values(smiles) / SEH_SCALE
    return np.array([_score(score, text) for text in smiles], np.float64)


@register(data=("proxy",), static=("environment", "function", "beta", "name"))
class MoleculeReward(on_host):
    """The reward of one derivation, a function that JAX can trace; rdkit runs on the host.

    A flow is trained for it with the same beta: `nd.gflownet.train(rng_key, environment, reward, beta=reward.beta)`.
    """

    environment: MoleculeEnvironment  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, environment: MoleculeEnvironment, score: Score, beta: float = 32.0, name: str | None = None):
        """A reward of derivations in an environment.

        Args:
            environment: Where derivations are from.
            score: `qed`, `sa`, a `SehProxy`, or a function of an rdkit molecule.
            beta: The power that training raises the reward to, positive.
            name: What training's checkpoints know the score by; by default the function's name, or of
                the proxy "seh" and a digest of its weights.

        Raises:
            ParameterError: for a power that is not positive.
            ArgumentTypeError: for another environment, and a score that is no function.
        """
        check_instance("environment", environment, MoleculeEnvironment)
        if not callable(score):
            raise ArgumentTypeError(f"score must be qed, sa, a SehProxy or a function of a molecule; got {score!r}.")
        check_name(name)
        self.environment, self.beta = environment, check_number("beta", beta, 0.0, ends="()")
        self.proxy, self.function = (score, None) if isinstance(score, SehProxy) else (None, score)
        # A digest of its weights tells one proxy from another; functions have their names alone.
        known = f"seh {fingerprint(score)}" if self.function is None else getattr(score, "__name__", "score")
        self.name = f"{name or known}, beta {self.beta:g}"

    def __call__(self, state: Derivation) -> jax.Array:
        """R of one derivation, a scalar; 0 where stop is not legal."""
        batch, floats = state.pieces.shape[:-1], jnp.float32
        log_count = jax.ShapeDtypeStruct(batch, floats)
        call = functools.partial(jax.pure_callback, vmap_method="broadcast_all")
        if self.proxy is None:
            host = functools.partial(_scored, self.environment, self.function)
            value, log_count = call(host, (jax.ShapeDtypeStruct(batch, floats), log_count), *state)
        else:
            host = functools.partial(_graphs, self.environment)
            graph, log_count = call(host, (_graph_shapes(self.environment), log_count), *state)
            value = self.proxy(graph) / SEH_SCALE
        return jnp.maximum(value, LOWEST) * jnp.exp(-log_count / self.beta)


@on_host_errors
def _scored(environment, function, pieces, slots):
    """Scores and log n of derivations, with the leading axes of `pieces`; log n is inf where there is no molecule."""
    batch = pieces.shape[:-1]
    values, log_counts = np.zeros(math.prod(batch), np.float32), np.full(math.prod(batch), math.inf, np.float32)
    for row, smiles in _molecules(environment, pieces, slots):
        values[row], log_counts[row] = _score(function, smiles), _log_count(environment, smiles)
    return values.reshape(batch), log_counts.reshape(batch)


@on_host_errors
def _graphs(environment, pieces, slots):
    """Graphs and log n of derivations, as `_scored`."""
    batch, size = pieces.shape[:-1], math.prod(pieces.shape[:-1])
    shapes = _graph_shapes(environment)
    graphs = MoleculeGraph(*(np.zeros((size, *part.shape), part.dtype) for part in shapes))
    # An empty molecule would have no atom to attend to.
    graphs.exists[:, 0] = True
    log_counts = np.full(size, math.inf, np.float32)
    for row, smiles in _molecules(environment, pieces, slots):
        log_counts[row] = _log_count(environment, smiles)
        for whole, part in zip(graphs, graph_of(parsed(smiles), shapes.exists.shape[0]), strict=True):
            whole[row] = part
    return MoleculeGraph(*(part.reshape(*batch, *part.shape[1:]) for part in graphs)), log_counts.reshape(batch)


def _molecules(environment, pieces, slots):
    """(row, SMILES) of those derivations that are molecules."""
    write, size = rdkit("Chem").MolToSmiles, environment.max_fragments
    pieces, slots = (np.asarray(part).reshape(-1, size) for part in (pieces, slots))
    counts = np.sum(pieces >= 0, axis=1)
    for row in np.flatnonzero((counts > 0) & (np.sum(slots >= 0, axis=1) == counts - 1)):
        yield row, write(molecule_of(environment, pieces[row], slots[row]))


def _graph_shapes(environment: MoleculeEnvironment) -> MoleculeGraph:
    size = environment.max_atoms
    neighbours = jax.ShapeDtypeStruct((size, MAX_DEGREE), jnp.int32)
    atoms, exists = jax.ShapeDtypeStruct((size, NUM_FEATURES), jnp.float32), jax.ShapeDtypeStruct((size,), bool)
    return MoleculeGraph(atoms, neighbours, neighbours, exists)


def _score(function, smiles: str) -> float:
    # What users write may come to read something else: it is asked every time.
    value = _own_score(function, smiles) if function in (qed, sa) else float(function(parsed(smiles)))
    if not math.isfinite(value):
        raise ParameterError(f"a score must be a finite number; got {value} for {smiles}. Correct the function.")
    return value


@functools.lru_cache(maxsize=_KEPT)
def _own_score(function, smiles: str) -> float:
    return function(parsed(smiles))


@functools.lru_cache(maxsize=_KEPT)
def _log_count(environment: MoleculeEnvironment, smiles: str) -> float:
    return math.log(num_derivations(environment, smiles))
