"""What can be said of a scene: captions that are true of its labels, drawn at random, and what a caption claims.

A caption has up to three parts, and names as much of each as chance will:

    solids    a [small | large] [colour] cube | ball | cylinder | cone          one of those that are there
              ... left of | right of | in front of | behind | and ...           both of them, in either order
              one object | two objects
    ground    on sand, in the snow, ..., or the bare word where it begins the caption
    sky       on a sunny day, under an overcast sky, at night, ..., or sunny, overcast, night by themselves

"a cube" is true of every picture with a cube in it. Left and right go by columns, in front of and behind by the labels'
depth: solids that stand beside each other are neither. `VOCABULARY` lists all words, synonyms among them.
"""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..checks.text import misread
from ..compose.grammar import Not, Or, fold, parse
from ..errors import check_key
from ..networks.text import TextConfig
from .staging import COLOURS, GROUNDS, SKIES, Labels

#: Phrasings by label, in the order of `staging`.
SHAPE_WORDS = (("cube", "box"), ("ball", "sphere"), ("cylinder", "cylinder"), ("cone", "cone"))
COLOUR_WORDS = tuple((colour, colour) for colour in COLOURS)
SIZE_WORDS = (("small", "little"), ("large", "big"))
GROUND_PHRASES = tuple((f"on {g}", f"on the {g}") for g in GROUNDS[:2]) + (
    ("on snow", "in the snow"), ("on water", "on the water"),
)  # fmt: skip
SKY_PHRASES = (
    ("on a sunny day", "under a sunny sky"), ("on an overcast day", "under an overcast sky"),
    ("at night", "under a night sky"),
)  # fmt: skip
COUNT_PHRASES = ("one object", "two objects")
#: By which of the two comes first, the left one or the right one: beside each other, in front of it, behind it.
RELATIONS = ("left of", "right of", "in front of", "behind", "and")

VOCABULARY = tuple(sorted({
    word
    for phrases in (
        *SHAPE_WORDS, *COLOUR_WORDS, *SIZE_WORDS, *GROUND_PHRASES, *SKY_PHRASES, COUNT_PHRASES, RELATIONS, GROUNDS,
        SKIES, ("a",),
    )
    for phrase in phrases
    for word in phrase.split()
}))  # fmt: skip
#: How a network reads these captions.
TEXT = TextConfig(words=VOCABULARY, max_tokens=18)


def _table(phrases: Any, length: int) -> np.ndarray:
    """Tokens [..., length] of nested tuples of phrases."""
    if isinstance(phrases, str):
        return TEXT.encode(phrases)[:length]
    return np.stack([_table(phrase, length) for phrase in phrases])


_A = TEXT.encode("a")[:1]
_SHAPES, _COLOURS, _SIZES = (_table(words, 1)[..., 0] for words in (SHAPE_WORDS, COLOUR_WORDS, SIZE_WORDS))
_GROUNDS, _SKIES = _table(GROUND_PHRASES, 3), _table(SKY_PHRASES, 4)
_BARE_GROUNDS, _BARE_SKIES = _table(GROUNDS, 3), _table(SKIES, 4)
_COUNTS, _RELATIONS = _table(COUNT_PHRASES, 11), _table(RELATIONS, 3)


def draw_caption(rng_key: jax.Array, labels: Labels) -> jax.Array:
    """Tokens [TEXT.max_tokens] of a random caption that is true of one picture's labels; it can be traced and mapped.

    Of the captions .45 speak of one solid, .35 of two where there are two, .05 of their number; ground and sky are said
    with probability one half each, and one of them where there is nothing else.
    """
    keys = jax.random.split(check_key(rng_key), 6)
    nothing = jnp.zeros(11, jnp.int32)
    first_key, second_key, which_key, relation_key = jax.random.split(keys[0], 4)
    first = jax.random.bernoulli(which_key).astype(int) * (labels.count == 2)
    one, other = (_solid(key, labels, i) for key, i in ((first_key, first), (second_key, 1 - first)))
    alone = jnp.concatenate([one, nothing[:7]])
    both = jnp.concatenate([one, _relation(relation_key, labels, first), other])
    kind = jax.random.uniform(keys[1])
    pair = (kind > 0.45) & (kind < 0.8) & (labels.count == 2)
    said = jnp.where(pair, both, jnp.where(kind < 0.8, alone, nothing))
    said = jnp.where((kind >= 0.8) & (kind < 0.85), jnp.asarray(_COUNTS)[labels.count - 1], said)
    has_ground, has_sky = jax.random.bernoulli(keys[2], shape=(2,))
    begins = said[0] == 0
    has_ground |= begins & ~has_sky & jax.random.bernoulli(keys[3])
    has_sky |= begins & ~has_ground
    ways = jax.random.bernoulli(keys[4], shape=(2,)).astype(int)
    ground = jnp.where(begins, jnp.asarray(_BARE_GROUNDS)[labels.ground], jnp.asarray(_GROUNDS)[labels.ground, ways[0]])
    is_bare = begins & ~has_ground
    sky = jnp.where(is_bare, jnp.asarray(_BARE_SKIES)[labels.sky], jnp.asarray(_SKIES)[labels.sky, ways[1]])
    tokens = jnp.concatenate([said, has_ground * ground, has_sky * sky])
    # Words first, in their order.
    return tokens[jnp.argsort(tokens == 0, stable=True)]


def _solid(rng_key, labels, i):
    """Tokens [4] of a solid: an article, its size and its colour or not, its shape."""
    say_key, way_key = jax.random.split(rng_key)
    size, colour, _ = jax.random.bernoulli(say_key, jnp.array([0.4, 0.6, 1.0]))
    ways = jax.random.bernoulli(way_key, 0.3, (2,)).astype(int)
    words = [
        jnp.asarray(_A)[0], size * jnp.asarray(_SIZES)[labels.size[i], ways[0]],
        colour * jnp.asarray(_COLOURS)[labels.colour[i], 0], jnp.asarray(_SHAPES)[labels.shape[i], ways[1]],
    ]  # fmt: skip
    return jnp.stack(words)


def _relation(rng_key, labels, first):
    """Tokens [3] of how solid `first` stands to the other."""
    sideways = first
    # Depth is the left one's: 1 in front, 2 behind; the right one's is the opposite.
    away = jnp.where((labels.depth == 1) == (first == 0), 2, 3)
    place, join = jax.random.uniform(rng_key, (2,))
    number = jnp.where((labels.depth > 0) & (place < 0.6), away, sideways)
    return jnp.asarray(_RELATIONS)[jnp.where(join < 0.15, 4, number)]


def _one_of(name: str, phrases: Any) -> str:
    """The pattern of one of nested tuples of words, as a group."""
    return (
        f"(?P<{name}>{'|'.join(word for words in phrases for word in ([words] if isinstance(words, str) else words))})"
    )


def _solid_pattern(i: int) -> str:
    size, colour = (_one_of(f"{name}{i}", words) for name, words in (("size", SIZE_WORDS), ("colour", COLOUR_WORDS)))
    return f"(?:a )?(?:{size} )?(?:{colour} )?{_one_of(f'shape{i}', SHAPE_WORDS)}"


_CLAIM = re.compile(
    f"(?:(?:{_solid_pattern(0)}(?: {_one_of('relation', RELATIONS)} {_solid_pattern(1)})?|"
    f"{_one_of('count', COUNT_PHRASES)})(?: |$))?"
    f"(?:(?:(?:on|in) (?:the )?)?{_one_of('ground', GROUNDS)}(?: |$))?"
    f"(?:(?:on an? |under an? |at )?{_one_of('sky', SKIES)}(?: day| sky)?)?"
)


def holds(caption: str, labels: Labels) -> np.ndarray:
    """Whether a caption is true of what pictures show, booleans [...], of labels with leading axes [...].

    Raises:
        TextError: for words outside of `VOCABULARY`, and for captions that are none of those that the module describes.
    """
    words = TEXT.decode(TEXT.encode(caption))
    claim = _CLAIM.fullmatch(words)
    if claim is None:
        read = _CLAIM.match(words)
        start = read.end() if read else 0
        raise misread("this is not how scenes are captioned, see datasets.captions", words, start, len(words))
    found, labels = claim.groupdict(), Labels(*map(np.asarray, labels))
    is_true = np.ones(labels.count.shape, bool)
    for name, known in (("ground", GROUNDS), ("sky", SKIES)):
        if found[name]:
            is_true &= getattr(labels, name) == known.index(found[name])
    if found["count"]:
        is_true &= labels.count == 1 + COUNT_PHRASES.index(found["count"])
    if not found["shape0"]:
        return is_true
    first = _is_there(found, 0, labels)
    if not found["relation"]:
        return is_true & np.any(first, axis=-1)
    second, depth = _is_there(found, 1, labels), labels.depth
    # The first of the caption is the left one of the picture, or the right one.
    as_left, as_right = first[..., 0] & second[..., 1], first[..., 1] & second[..., 0]
    return is_true & {
        "left of": as_left, "right of": as_right, "and": as_left | as_right,
        "in front of": (as_left & (depth == 1)) | (as_right & (depth == 2)),
        "behind": (as_left & (depth == 2)) | (as_right & (depth == 1)),
    }[found["relation"]]  # fmt: skip


def fulfils(prompt: str, labels: Labels) -> np.ndarray:
    """Whether pictures show what a prompt asks for, `"a cube" AND NOT "sunny"` say, booleans [...]; see `nd.prompt`.

    Raises:
        TextError: for a prompt that does not follow the grammar, or captions that `holds` cannot read.
    """

    def node(node, parts):
        if isinstance(node, Not):
            return ~parts[0]
        return np.any(parts, axis=0) if isinstance(node, Or) else np.all(parts, axis=0)

    return fold(parse(prompt), lambda caption: holds(caption.text, labels), node)


def _is_there(found: dict, i: int, labels: Labels) -> np.ndarray:
    """Whether either solid [..., 2] is the i-th of a caption."""
    is_it = labels.shape >= 0
    for name, words in (("shape", SHAPE_WORDS), ("colour", COLOUR_WORDS), ("size", SIZE_WORDS)):
        if word := found[f"{name}{i}"]:
            is_it = is_it & (getattr(labels, name) == next(k for k, known in enumerate(words) if word in known))
    return is_it
