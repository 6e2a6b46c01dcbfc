r"""Captions as conditions of a network: a vocabulary of words, and a small transformer that reads them.

A caption is a row of L tokens: the number of each word in the vocabulary, from one, then zeros. Zeros alone are the
null caption, which stands for none. The transformer (pre-normalised, Xiong et al. 2020) sees a learnt start vector
before the words,

.. math::
    h_0 = (s, E_{w_1} + p_1, \dots, E_{w_L} + p_L), \qquad
    h \leftarrow h + \mathrm{attention}(\mathrm{norm}(h)), \qquad h \leftarrow h + \mathrm{MLP}(\mathrm{norm}(h)),

in which nothing attends to zeros, and gives a linear function of the mean of what has become of start and words.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ..checks.fields import Checked
from ..checks.numbers import array_of, constant, floats
from ..checks.text import misread, shown
from ..errors import ArgumentTypeError, ParameterError, ShapeError, check_integer
from .embedding import linear

#: Channels of an attention head.
HEAD = 16
#: What may stand around a word and means nothing.
TRIMMED = ".,;:!?\"'()"
MOST_WORDS, LONGEST_WORD, MOST_TOKENS = 2**16, 40, 2**10


def _pieces(caption: str) -> list[tuple[str, int]]:
    """The words of a caption, in lower case and without punctuation, and where each begins."""
    pieces = []
    for match in re.finditer(r"\S+", caption):
        word = match.group().lstrip(TRIMMED)
        start = match.end() - len(word)
        pieces += [(word.rstrip(TRIMMED).lower(), start)] if word else []
    return pieces


def _vocabulary(name: str, words: Any, remedy: str = "") -> tuple[str, ...]:
    if not isinstance(words, list | tuple) or not 0 < len(words) <= MOST_WORDS:
        raise ParameterError(f"{name} must be a tuple of 1 to {MOST_WORDS} words; got {shown(words)}.")
    for word in words:
        fine = isinstance(word, str) and word.isprintable() and len(word) <= LONGEST_WORD
        if not fine or _pieces(word) != [(word, 0)]:
            raise ParameterError(
                f"each of {name} must be a word in lower case, without spaces or punctuation around it; got "
                f"{shown(word)}. Split it, or trim it."
            )
    if len(set(words)) < len(words):
        raise ParameterError(f"{name} must differ; {shown(max(words, key=words.count))} is there twice. Drop one.")
    return tuple(words)


@dataclasses.dataclass(frozen=True)
class TextConfig(Checked):
    """A vocabulary, and the transformer that reads it: for the field `text` of a `UNetConfig`.

    Case does not matter in captions, nor does punctuation around words.

    Attributes:
        words: The words, in lower case; token i + 1 is the i-th of them, token 0 is none.
        max_tokens: Most words of a caption, and length of a condition vector.
        width: Width of the transformer, a multiple of 16, the width of an attention head.
        num_blocks: Its blocks.
    """

    words: Annotated[tuple[str, ...], _vocabulary]
    max_tokens: Annotated[int, partial(check_integer, high=MOST_TOKENS)] = 16
    width: Annotated[int, partial(check_integer, high=2**12)] = 64
    num_blocks: Annotated[int, partial(check_integer, high=2**8)] = 2

    def __post_init__(self):
        super().__post_init__()
        if self.width % HEAD:
            raise ParameterError(f"width must be a multiple of {HEAD}; got {self.width}. Take {HEAD} or 64.")

    @classmethod
    def of(cls, captions: Sequence[str], **settings) -> TextConfig:
        """With the words of these captions as vocabulary, and the length of the longest of them as `max_tokens`."""
        if isinstance(captions, str) or not all(isinstance(caption, str) for caption in captions):
            raise ArgumentTypeError(f"captions must be a list of texts; got {shown(captions)}. Put them into a list.")
        rows = [[word for word, _ in _pieces(caption)] for caption in captions]
        words = sorted({word for row in rows for word in row})
        return cls(**{"words": tuple(words), "max_tokens": max(map(len, rows), default=1)} | settings)

    def encode(self, caption: str) -> np.ndarray:
        """The tokens [max_tokens] of a caption, int32.

        Raises:
            TextError: for words that are not in the vocabulary, too many words, or none; it says where.
            ArgumentTypeError: if the caption is no text.
        """
        if not isinstance(caption, str):
            raise ArgumentTypeError(f"a caption must be text; got {shown(caption)}. Give 'a cube', say.")
        pieces = _pieces(caption)
        if not pieces:
            raise misread("a caption needs a word. For no caption give None", caption, 0, len(caption))
        known = _numbers(self.words)
        for word, start in pieces:
            if word not in known:
                nearest = difflib.get_close_matches(word[: 2 * LONGEST_WORD], self.words, 1, cutoff=0.0)[0]
                reason = f"the word {shown(word)} is not known. The nearest that is: {nearest!r}"
                raise misread(reason, caption, start, start + len(word))
        if len(pieces) > self.max_tokens:
            reason = f"a caption may have {self.max_tokens} words; it has {len(pieces)}. Drop some"
            raise misread(reason, caption, pieces[self.max_tokens][1], len(caption))
        tokens = np.zeros(self.max_tokens, np.int32)
        tokens[: len(pieces)] = [known[word] for word, _ in pieces]
        return tokens

    def rows(self, conditions):
        """Captions of n images, a list of texts, as their tokens [n, max_tokens]; whatever else as it is."""
        is_text = isinstance(conditions, list | tuple | np.ndarray) and any(isinstance(c, str) for c in conditions)
        return np.stack([self.encode(caption) for caption in conditions]) if is_text else conditions

    def decode(self, tokens) -> str:
        """The caption of tokens [max_tokens]; errors as of `checked`."""
        return " ".join(self.words[token - 1] for token in self.checked(tokens, 1) if token)

    def checked(self, tokens, ndim: int = 2) -> np.ndarray:
        """Tokens [n, max_tokens], or [max_tokens] for `ndim` 1, as int32.

        ShapeError for other shapes and what is no array of numbers, ParameterError for what are no tokens.
        """
        shape = "[n, {}]" if ndim == 2 else "[{}]"
        values = array_of("tokens of captions", tokens, f"an array {shape.format(self.max_tokens)}")
        if values.ndim != ndim or values.shape[-1] != self.max_tokens:
            raise ShapeError(
                f"tokens of captions must have shape {shape.format(self.max_tokens)}; got {values.shape}. "
                "TextConfig.encode makes them of a caption."
            )
        fine = (values >= 0) & (values <= len(self.words)) & (values == np.round(values))
        if not np.all(fine):
            raise ParameterError(
                f"tokens of captions must be whole numbers from 0 to {len(self.words)}; got {values[~fine][0]:g}. "
                "TextConfig.encode makes them of a caption."
            )
        return values.astype(np.int32)

    def condition(self, caption, before: str = "") -> tuple[jax.Array, str]:
        """The condition [max_tokens + 1] of a caption or of its tokens, and how it prints, with what stands before.

        Captions of the same words have the same array, so that formulas know them to be equal. Errors as of `encode`
        and `checked`.
        """
        tokens = self.encode(caption) if isinstance(caption, str) else self.checked(caption, 1)
        if not np.any(tokens):
            raise ParameterError("the tokens of a caption must name a word; all are 0. For no caption give None.")
        return _constant(tuple(tokens.tolist()), floats()), f'{before}"{self.decode(tokens)}"'


@lru_cache
def _numbers(words: tuple[str, ...]) -> dict[str, int]:
    return {word: number for number, word in enumerate(words, 1)}


@lru_cache(maxsize=4096)
def _constant(tokens: tuple[int, ...], dtype) -> jax.Array:
    return constant(np.append(tokens, 1.0))


class TextBlock(nnx.Module):
    """Self-attention and a hidden layer, each added to what it reads."""

    def __init__(self, width, *, rngs):
        self.norms = nnx.List([nnx.LayerNorm(width, rngs=rngs) for _ in range(2)])
        self.project, self.back = linear(width, 3 * width, rngs=rngs), linear(width, width, rngs=rngs)
        self.hidden, self.out = linear(width, 4 * width, rngs=rngs), linear(4 * width, width, 0.5, rngs=rngs)

    def __call__(self, h, seen):
        length, width = h.shape
        query, key, value = jnp.moveaxis(self.project(self.norms[0](h)).reshape(length, 3, -1, HEAD), 1, 0)
        attended = jax.nn.dot_product_attention(query, key, value, mask=seen[None, None, :])
        h = h + self.back(attended.reshape(length, width))
        return h + self.out(nnx.silu(self.hidden(self.norms[1](h))))


class TextEncoder(nnx.Module):
    """[size] numbers that say what a condition does: tokens [max_tokens], and whether they count; see the module."""

    def __init__(self, config: TextConfig, size: int, *, rngs):
        self.num_tokens, width = len(config.words) + 1, config.width
        normal = lambda *shape: nnx.Param(jax.random.normal(rngs.params(), shape))
        self.words, self.places, self.start = (normal(n, width) for n in (self.num_tokens, config.max_tokens, 1))
        self.blocks = nnx.List([TextBlock(width, rngs=rngs) for _ in range(config.num_blocks)])
        self.norm, self.head = nnx.LayerNorm(width, rngs=rngs), linear(width, size, rngs=rngs)

    def __call__(self, condition):
        tokens = jnp.round(condition[:-1]).astype(int)
        # A product, not an index: the gradient of indexing is a scatter, which is slow.
        words = jax.nn.one_hot(tokens, self.num_tokens) @ self.words[...] + self.places[...]
        h, seen = jnp.concatenate([self.start[...], words]), jnp.append(True, tokens > 0)
        for block in self.blocks:
            h = block(h, seen)
        # The mean, not the start alone, of which words would be a small part at first.
        return self.head(self.norm(jnp.where(seen[:, None], h, 0.0).sum(0) / seen.sum()))
