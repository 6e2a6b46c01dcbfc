r"""The sEH proxy of Bengio et al. (2021): a message passing network that predicts how well a molecule binds.

With W_k the matrix [64, 64] that a small network makes of the one-hot kind k of a bond, R a root matrix and N(i) the
neighbours of atom i, twelve rounds of

.. math:: m_i = \phi\Big(\tfrac{1}{|N(i)|} \sum_{j \in N(i)} h_j W_{k(i, j)} + R h_i + b\Big), \qquad
          h_i \leftarrow \mathrm{GRU}(m_i, h_i),

phi the leaky rectifier, and then Set2Set (Vinyals et al. 2016): three rounds in which an LSTM asks q, atoms answer with
r = sum_i softmax(q . h_i) h_i, and (q, r) is asked with next; the last (q, r) goes through one linear layer. The value
is eight times the reward: about 4 for good molecules of the training set.

The weights (`seh_proxy.safetensors`, 22 arrays in the original's order, 18 of them used) are those of GFNOrg/gflownet,
MIT licence; they are not part of this package. There, R multiplies from the other side, h_i R. Later code, that of
Compositional Sculpting included, reads the same array as a linear layer's, R h_i, so that published tables hold for
this reading; it is the one here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...disk.checkpoint import read_state_dict
from ...errors import WeightsError
from ...pytree import register
from .graphs import LOOP, MoleculeGraph, graph_of
from .library import parsed

WIDTH, ROUNDS, QUESTIONS = 64, 12, 3
#: Numbers of the arrays that the value depends on, and their shapes: linear layers are [out, in], as in PyTorch.
SHAPES = {
    0: (64, 71), 1: (64,), 2: (64, 64), 3: (64,), 4: (128, 4), 5: (128,), 6: (4096, 128), 7: (4096,),
    8: (192, 64), 9: (192, 64), 10: (192,), 11: (192,),
    16: (256, 128), 17: (256, 64), 18: (256,), 19: (256,), 20: (1, 128), 21: (1,),
}  # fmt: skip


@register(data=("weights",), static=())
class SehProxy:
    """The trained network as a function of molecules; a pytree whose leaves are its weights."""

    def __init__(self, weights: Mapping[str, Any]):
        """From arrays named "00" to "21", as `load` reads them.

        Raises:
            WeightsError: if one is missing or of another shape.
        """
        names = {f"{number:02d}": shape for number, shape in SHAPES.items()}
        found = {name: np.shape(weights[name]) for name in names if name in weights}
        if found != names:
            wrong = sorted(name for name in names if found.get(name) != names[name])
            raise WeightsError(
                f"the sEH proxy has arrays 00 to 21 of the shapes in gflownet.molecules.proxy.SHAPES; missing or of "
                f"another shape: {', '.join(wrong)}. Give the weights of GFNOrg/gflownet in their order."
            )
        self.weights = {name: jnp.asarray(weights[name], jnp.float32) for name in names}

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SehProxy:
        """The proxy of a safetensors file.

        Raises:
            CheckpointError: if there is no such file, or it is no safetensors file.
            WeightsError: if it holds other arrays.
        """
        return cls(read_state_dict(path))

    def __call__(self, graph: MoleculeGraph) -> jax.Array:
        """The predicted value of one molecule, a scalar. About 1 MFLOP per atom."""
        w = self.weights
        kinds = jnp.eye(LOOP + 1, LOOP)  # the loop's features are zero
        mixing = (_leaky(kinds @ w["04"].T + w["05"]) @ w["06"].T + w["07"]).reshape(-1, WIDTH, WIDTH)
        known = graph.neighbours >= 0
        degree = jnp.maximum(jnp.sum(known, axis=1, keepdims=True), 1)

        def round_(_, h):
            sent = jnp.einsum("id,kde->ike", h, mixing)[graph.neighbours, graph.bonds]
            message = jnp.sum(sent * known[..., None], axis=1) / degree + h @ w["02"].T + w["03"]
            return _gru(_leaky(message), h, w)

        h = _leaky(jnp.asarray(graph.atoms) @ w["00"].T + w["01"])
        h = jax.lax.fori_loop(0, ROUNDS, round_, h)
        asked, hidden, cell = jnp.zeros(2 * WIDTH), jnp.zeros(WIDTH), jnp.zeros(WIDTH)
        for _ in range(QUESTIONS):
            hidden, cell = _lstm(asked, hidden, cell, w)
            attention = jax.nn.softmax(jnp.where(graph.exists, h @ hidden, -jnp.inf))
            asked = jnp.concatenate([hidden, attention @ h])
        return asked @ w["20"][0] + w["21"][0]

    def values(self, smiles: Sequence[str]) -> np.ndarray:
        """Predicted values [N] of molecules given as SMILES.

        Raises:
            ParameterError: for text that is no molecule.
            MissingLibraryError: where rdkit is not installed.
        """
        molecules = [parsed(text) for text in smiles]
        if not molecules:
            return np.zeros(0, np.float32)
        # Sizes in steps, so that few programs are compiled.
        size = 16 * -(-max(molecule.GetNumAtoms() for molecule in molecules) // 16)
        graphs = [graph_of(molecule, size) for molecule in molecules]
        return np.asarray(_batch(self, jax.tree.map(lambda *a: np.stack(a), *graphs)))


@jax.jit
def _batch(proxy: SehProxy, graphs: MoleculeGraph) -> jax.Array:
    return jax.lax.map(proxy, graphs, batch_size=64)


def _leaky(x):
    return jax.nn.leaky_relu(x, 0.01)


def _gru(x, h, w):
    """PyTorch's gated recurrent unit: reset, update, new."""
    xr, xz, xn = jnp.split(x @ w["08"].T + w["10"], 3, axis=-1)
    hr, hz, hn = jnp.split(h @ w["09"].T + w["11"], 3, axis=-1)
    update = jax.nn.sigmoid(xz + hz)
    return (1 - update) * jnp.tanh(xn + jax.nn.sigmoid(xr + hr) * hn) + update * h


def _lstm(x, hidden, cell, w):
    """PyTorch's long short-term memory: input, forget, new, output."""
    i, f, g, o = jnp.split(w["16"] @ x + w["18"] + w["17"] @ hidden + w["19"], 4)
    cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(cell), cell
