"""Captions: their words, tokens and errors, and the transformer that reads them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from refusals import assert_refused, refusals

import numpyro_diffusion as nd
from numpyro_diffusion.errors import ArgumentTypeError, ParameterError, ShapeError, TextError
from numpyro_diffusion.networks.text import TextEncoder

TEXT = nd.TextConfig(words=("a", "cube", "on", "red", "sand"), max_tokens=6, width=16, num_blocks=1)


def test_words_are_numbered_and_come_back():
    assert TEXT.encode("a red cube").tolist() == [1, 4, 2, 0, 0, 0]
    assert TEXT.encode("  A red,\tCUBE (on sand). ").tolist() == [1, 4, 2, 3, 5, 0]
    assert TEXT.decode(TEXT.encode("A red cube!")) == "a red cube"
    assert TEXT.encode("a").dtype == np.int32


def test_a_vocabulary_of_captions():
    found = nd.TextConfig.of(["A cube, on sand", "a red cube"], width=16)
    assert found.words == TEXT.words and found.max_tokens == 4 and found.width == 16
    assert found == nd.TextConfig(words=list(TEXT.words), max_tokens=4, width=16) and hash(found) is not None


def test_captions_of_the_same_words_are_one_condition():
    first, again, other = (TEXT.condition(c) for c in ("a cube", "A  cube.", "cube a"))
    assert first[0] is again[0] and first[0] is not other[0] and first[1] == again[1] == '"a cube"'
    assert TEXT.condition([1, 2, 0, 0, 0, 0])[0] is first[0] is TEXT.condition(np.array([1.0, 2, 0, 0, 0, 0]))[0]
    assert first[0].tolist() == [1, 2, 0, 0, 0, 0, 1]
    with jax.enable_x64(True):
        assert TEXT.condition("a cube")[0].dtype == jnp.float64


@pytest.fixture(scope="module")
def encoder():
    return TextEncoder(TEXT, 4, rngs=nnx.Rngs(0))


def randomised(encoder):
    """All of its weights random, so that none of its parts is trivial."""
    graph, state = nnx.split(encoder)
    leaves, treedef = jax.tree.flatten(state)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noise = [0.3 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    return nnx.merge(graph, jax.tree.unflatten(treedef, [a + b for a, b in zip(leaves, noise, strict=True)]))


def test_the_transformer_sees_words_in_their_order_and_nothing_else(encoder):
    read = jax.jit(jax.vmap(randomised(encoder)))
    captions = ["a red cube", "a cube red", "a red", "cube", "on sand"]
    rows = [np.append(TEXT.encode(caption), 1.0) for caption in captions]
    null, null_kept, rounded = np.zeros(7), np.append(np.zeros(6), 1.0), rows[0] + 1e-3
    found = np.asarray(read(np.stack([*rows, null, null_kept, rounded]).astype(np.float32)))
    distances = np.linalg.norm(found[:6, None] - found[:6], axis=-1)[np.triu_indices(6, 1)]
    assert np.all(np.isfinite(found)) and np.min(distances) > 1e-3  # the null caption among them
    assert np.array_equal(found[5], found[6]) and np.array_equal(found[0], found[7])


def test_padding_is_not_seen(encoder):
    network = randomised(encoder)
    tokens = jnp.append(jnp.asarray(TEXT.encode("a cube"), float), 1.0)
    before = network(tokens)
    network.words[...] = network.words[...].at[0].add(5.0)  # what token 0 stands for
    network.places[...] = network.places[...].at[2:].add(5.0)
    assert np.allclose(network(tokens), before, atol=1e-5)


WRONG = {
    "unknown": ("a red kube", r"column 7: the word 'kube' is not known.*'cube'.*\n  a red kube\n        \^\^\^\^$"),
    "unknown, trimmed": ("a (rad) cube", "column 4: the word 'rad' is not known.*'red'"),
    "control": ("a\x1b[31m cube", r"the word 'a\\x1b\[31m' is not known"),
    "empty": ("", "column 1: a caption needs a word"),
    "punctuation": (" ,. ", "a caption needs a word"),
    "too long": ("a red cube on sand a a", r"column 22: a caption may have 6 words; it has 7"),
}


@pytest.mark.parametrize(("caption", "words"), WRONG.values(), ids=WRONG)
def test_a_wrong_caption_is_pointed_at(caption, words):
    assert_refused(lambda: TEXT.encode(caption), TextError, words)


def test_long_texts_are_shown_in_part():
    with pytest.raises(TextError) as caught:
        TEXT.encode("a " * 10_000 + "kube")
    assert len(str(caught.value)) < 400 and "kube" in str(caught.value)
    with pytest.raises(TextError, match="is not known"):
        TEXT.encode("x" * 100_000)


def text(**settings):
    return lambda: nd.TextConfig(**{"words": ("a",)} | settings)


@refusals({
    "no text": (lambda: TEXT.encode(3), ArgumentTypeError, "a caption must be text; got 3"),
    "one text": (lambda: nd.TextConfig.of("a cube"), ArgumentTypeError, "a list of texts"),
    "no words": (text(words=()), ParameterError, "a tuple of 1 to 65536 words"),
    "two words": (text(words=("a cube",)), ParameterError, "each of words.*'a cube'"),
    "upper case": (text(words=("A",)), ParameterError, "in lower case.*'A'"),
    "twice": (text(words=("a", "b", "a")), ParameterError, "'a' is there twice"),
    "a text of words": (text(words="a b"), ParameterError, "a tuple of 1 to"),
    "width": (text(width=20), ParameterError, "width must be a multiple of 16; got 20"),
    "tokens": (text(max_tokens=0), ParameterError, "max_tokens must be an integer from 1"),
    "shape": (lambda: TEXT.condition(np.ones(5)), ShapeError, r"shape \[6\]; got \(5,\)"),
    "fractions": (lambda: TEXT.condition(np.full(6, 0.5)), ParameterError, "whole numbers from 0 to 5; got 0.5"),
    "large": (lambda: TEXT.condition(np.full(6, 6)), ParameterError, "from 0 to 5; got 6"),
    "NaN": (lambda: TEXT.condition(np.full(6, np.nan)), ParameterError, "from 0 to 5; got nan"),
    "null": (lambda: TEXT.condition(np.zeros(6)), ParameterError, "must name a word.*give None"),
    "a U-Net's text": (lambda: nd.UNetConfig(text=("a",)), ParameterError, "text must be a TextConfig"),
    "positions": (lambda: nd.UNetConfig(text=TEXT, num_positions=1), ParameterError, "a caption or positions"),
})  # fmt: skip
def test_refused(call, error, words):
    assert_refused(call, error, words)
