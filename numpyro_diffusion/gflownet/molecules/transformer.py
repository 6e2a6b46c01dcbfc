r"""A policy that reads a derivation as a tree: a transformer over its fragments.

Tokens are the fragments, the slot that waits for a piece, and the derivation as a whole. Attention knows how two of
them are related: the learned biases of self, parent, child and others are added to its logits,

.. math:: A_{ij} = \mathrm{softmax}_j (q_i \cdot k_j / \sqrt d + b_{r(i, j)}) .

Slots are chosen by the token of the fragment that offers them, pieces and stop by the token of the whole.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ...checks.fields import Checked, check_instance
from ...errors import ParameterError
from ...networks.config import Count
from .environment import MoleculeEnvironment

#: Relations of two tokens: the same, parent, child, any other.
_NUM_RELATIONS = 4


@dataclasses.dataclass(frozen=True)
class FragmentTransformer(Checked):
    """Architecture of a policy for molecules, `network=` of `nd.gflownet.train`; 6 x 128 as in Garipov et al. (2023).

    Attributes:
        width: Size of a token.
        num_layers: Number of blocks, each of attention and a perceptron of one hidden layer.
        num_heads: Heads of the attention; they divide `width`.
    """

    width: Count = 128
    num_layers: Count = 6
    num_heads: Count = 4

    def __post_init__(self):
        super().__post_init__()
        if self.width % self.num_heads:
            raise ParameterError(f"num_heads must divide width; got {self.num_heads} and {self.width}.")

    def build(self, environment: MoleculeEnvironment, rng_key: jax.Array) -> tuple[Any, Any]:
        """(graph definition, state) of a fresh module; all legal actions are alike at the start."""
        check_instance("environment", environment, MoleculeEnvironment, remedy="Others take PolicyNetwork.")
        return nnx.split(_Transformer(environment, self, rngs=nnx.Rngs(params=rng_key)))


class _Block(nnx.Module):
    def __init__(self, config: FragmentTransformer, *, rngs):
        width, self.heads = config.width, config.num_heads
        self.norms = nnx.List([nnx.LayerNorm(width, rngs=rngs) for _ in range(2)])
        self.attend, self.merge = nnx.Linear(width, 3 * width, rngs=rngs), nnx.Linear(width, width, rngs=rngs)
        self.bias = nnx.Param(jnp.zeros((_NUM_RELATIONS, self.heads)))
        self.inner, self.outer = nnx.Linear(width, 4 * width, rngs=rngs), nnx.Linear(4 * width, width, rngs=rngs)

    def __call__(self, tokens, relation, exists):
        count = len(tokens)
        q, k, v = jnp.moveaxis(self.attend(self.norms[0](tokens)).reshape(count, 3, self.heads, -1), 1, 0)
        bias = jnp.moveaxis(self.bias[...][relation], -1, 0)
        mixed = jax.nn.dot_product_attention(q, k, v, bias=bias, mask=exists[None, None])
        tokens = tokens + self.merge(mixed.reshape(count, -1))
        return tokens + self.outer(nnx.gelu(self.inner(self.norms[1](tokens))))


class _Transformer(nnx.Module):
    def __init__(self, environment: MoleculeEnvironment, config: FragmentTransformer, *, rngs):
        width, zeros = config.width, nnx.initializers.zeros
        self.size, self.num_pieces, self.slots_each = (
            environment.max_fragments, len(environment.pieces), environment.width,
        )  # fmt: skip
        self.piece, self.slot = (
            nnx.Linear(self.num_pieces, width, rngs=rngs),
            nnx.Linear(environment.num_slots, width, rngs=rngs),
        )
        self.whole = nnx.Linear(self.size + 2, width, rngs=rngs)
        self.blocks = nnx.List([_Block(config, rngs=rngs) for _ in range(config.num_layers)])
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.of_slots = nnx.Linear(width, self.slots_each, kernel_init=zeros, rngs=rngs)
        self.of_whole = nnx.Linear(width, self.num_pieces + 1, kernel_init=zeros, rngs=rngs)

    def __call__(self, features):
        # As `MoleculeEnvironment.features` puts them.
        num_slots = (self.size - 1) * self.slots_each
        ends = self.size * self.num_pieces, self.size * (self.num_pieces + num_slots)
        pieces, slots, whole = jnp.split(features, ends)
        pieces, slots = pieces.reshape(self.size, -1), slots.reshape(self.size, -1)
        tokens = jnp.concatenate([self.whole(whole)[None], self.piece(pieces) + self.slot(slots)])
        exists = jnp.append(True, jnp.any(pieces > 0, axis=1) | jnp.any(slots > 0, axis=1))
        parent = slots.reshape(self.size, self.size - 1, self.slots_each).sum(-1)
        parent = jnp.pad(parent, ((1, 0), (1, 1)))  # the whole has none, the last fragment no children
        relation = 3 - 3 * jnp.eye(self.size + 1) - 2 * parent - parent.T
        for block in self.blocks:
            tokens = block(tokens, relation.astype(int), exists)
        tokens = self.norm(tokens)
        return jnp.concatenate([self.of_slots(tokens[1 : self.size]).ravel(), self.of_whole(tokens[0])])
