"""A density that knows captions: strings as conditions, in formulas, in files, in models."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from densities import untrained
from images import TRAINING
from refusals import assert_refused, refusals

import numpyro_diffusion as nd
from numpyro_diffusion.errors import ParameterError, ShapeError, TextError
from numpyro_diffusion.networks.unet import UNet

SHAPE = (4, 4, 1)
TEXT = nd.TextConfig(words=("a", "bright", "dark", "picture", "very"), max_tokens=4, width=16, num_blocks=1)
NETWORK = nd.UNetConfig(
    shape=SHAPE, width=8, multipliers=(1, 2), num_blocks=1, embedding_size=8, normalise=False, text=TEXT
)
X = np.random.default_rng(0).normal(size=(5, *SHAPE)).astype(np.float32)
CAPTIONS = ("a bright picture", "a dark picture")


def captioned(seed=0, network=NETWORK, cls=nd.EnergyDensity):
    """An untrained density whose weights are all random: none of its parts is trivial."""
    config = nd.UNetConfig(**{**vars(network), "condition_size": 4})
    density = untrained(
        config, SHAPE, "score" if cls is nd.ScoreModel else "inner_product", cls is nd.EnergyDensity,
        mean=np.zeros(16), covariance=np.ones(16), cls=cls,
    )  # fmt: skip
    leaves, treedef = jax.tree.flatten(density.state)
    rng = np.random.default_rng(seed)
    leaves = [a + jnp.asarray(0.1 * rng.normal(size=a.shape), a.dtype) for a in leaves]
    density.state, density.name = jax.tree.unflatten(treedef, leaves), "p"
    return density


@pytest.fixture(scope="module")
def p():
    return captioned()


@jax.jit
def value(density):
    return density.log_prob(X, 0.4)


def test_a_caption_is_a_condition_and_prints_as_it_is(p):
    found = p.given("A bright picture.")
    assert repr(found) == 'p|"a bright picture"'
    assert np.array_equal(value(found), value(p.given(TEXT.encode("a bright picture"))))
    assert not np.allclose(value(found), value(p.given("a dark picture")), atol=1e-3)
    assert not np.allclose(value(found), value(p), atol=1e-3) and p.given(None) is p


def test_the_formula_of_the_paper_costs_one_batched_call(p, monkeypatch):
    d, alpha, calls, original = p.given, 0.3, [], UNet.__call__
    density = d("a picture") * (0.5 * d("dark") + 0.5 * d("bright")) / d("very dark") ** alpha
    assert repr(density) == 'p|"a picture" * (0.5 * p|"dark" + 0.5 * p|"bright") / p|"very dark" ** 0.3'
    prompt = nd.prompt(p, '"a picture" AND ("dark" OR "bright" OR "dark picture") AND NOT "very dark"')
    monkeypatch.setattr(UNet, "__call__", lambda self, *args: calls.append(1) or original(self, *args))
    found = jax.jit(lambda density: density.log_prob(X, 0.4))(density)
    assert len(calls) == 1 and [len(c) for c in density.conditions] == [4]
    jax.eval_shape(lambda density: density.log_prob(X, 0.4), prompt)
    assert len(calls) == 2 and [len(c) for c in prompt.conditions] == [6]
    whole, dark, bright, very = (value(d(c)) for c in ("a picture", "dark", "bright", "very dark"))
    expected = whole + jnp.logaddexp(dark, bright) - jnp.log(2) - alpha * very
    assert np.allclose(found, expected, rtol=1e-4, atol=1e-3)


def test_equal_captions_are_one_term(p):
    assert repr(p.given("dark") * p.given("dark") / p.given("Dark") ** 0.5) == 'p|"dark" ** 1.5'
    squared = nd.compose_conditions(p, ["dark", "bright"])
    assert repr(squared) == 'p|"dark" * p|"bright" / p'
    assert repr(nd.classifier_free_guided(p, "dark", 2.0)) == 'p|"dark" ** 2 / p'


def test_captions_are_known_after_loading(p, tmp_path):
    nd.save(p, tmp_path / "p.safetensors")
    loaded = nd.load(tmp_path / "p.safetensors")
    assert loaded.config == p.config and loaded.config.text == TEXT
    assert np.allclose(value(loaded.given(CAPTIONS[0])), value(p.given(CAPTIONS[0])), rtol=1e-6)


def test_within_jit_and_traced_tokens(p):
    inside = jax.jit(lambda p: p.given(CAPTIONS[1]).log_prob(X, 0.4))(p)
    traced = jax.jit(lambda tokens: p.given(tokens).log_prob(X, 0.4))(TEXT.encode(CAPTIONS[1]))
    assert np.allclose(inside, value(p.given(CAPTIONS[1])), rtol=1e-5)
    assert np.allclose(traced, inside, rtol=1e-5)


@pytest.mark.slow
def test_a_score_model_knows_captions_too():
    score = captioned(cls=nd.ScoreModel)
    gradient = jax.jit(lambda density: density.score(X, 0.4))
    bright, dark = gradient(score.given("bright")), gradient(score.given("dark"))
    assert not np.allclose(bright, dark, atol=1e-3)
    quotient = nd.prompt(score, '"bright" AND NOT^0.5 "dark"', floor=0)
    assert np.allclose(gradient(quotient), bright + 0.5 * gradient(score) - 0.5 * dark, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_captions_are_learnt():
    """Pictures are of one grey value each, .7 or -.7 with noise .3, and captions say which."""
    sign = np.where(np.arange(200) % 2, -1.0, 1.0)
    noise = np.random.default_rng(1).normal(size=(200, *SHAPE))
    x = (0.7 * sign[:, None, None, None] + 0.3 * noise).astype(np.float32)
    density = nd.fit(
        jax.random.key(0), x, conditions=[CAPTIONS[0] if s > 0 else CAPTIONS[1] for s in sign], network=NETWORK,
        model="score", progress_bar=False,
        training=nd.TrainingConfig(**{**vars(TRAINING), "num_steps": 150, "ema_decay": 0.9}),
    )  # fmt: skip
    t = density.schedule.time(1.0)
    at_zero = jax.jit(lambda density: density.score(np.zeros(SHAPE), t) * density.schedule.alpha(t))
    bright, dark = (float(jnp.mean(at_zero(density.given(caption)))) for caption in CAPTIONS)
    # The truth is 0.7 / 1.09; so much is learnt soon.
    assert 0.2 < bright < 0.9 and -0.9 < dark < -0.2


@pytest.mark.slow
def test_a_caption_in_a_numpyro_model(p):
    def model(y):
        x = numpyro.sample("x", nd.DiffusionPrior(p.given("a dark picture")))
        numpyro.sample("y", numpyro.distributions.Normal(x.sum(), 1.0), obs=y)

    mcmc = nd.AnnealedMCMC(model, nd.ULA(step_size=1e-3), num_chains=4, levels=3, progress_bar=False)
    mcmc.run(jax.random.key(0), 0.5)
    assert mcmc.get_samples()["x"].shape == (4, *SHAPE) and np.all(np.isfinite(mcmc.get_samples()["x"]))


def fit(conditions, network=NETWORK):
    x = np.random.default_rng(2).normal(size=(2, *SHAPE)).astype(np.float32)
    return lambda: nd.fit(jax.random.key(0), x, conditions=conditions, network=network)


def plain():
    return untrained(
        nd.UNetConfig(shape=SHAPE, width=8, multipliers=(1,), num_blocks=1, condition_size=2), SHAPE,
        mean=np.zeros(16), covariance=np.ones(16),
    )  # fmt: skip


@refusals({
    "unknown": (lambda: captioned().given("a blak picture"), TextError, "column 3: the word 'blak'.*'dark'"),
    "empty": (lambda: captioned().given(""), TextError, "a caption needs a word. For no caption give None"),
    "long": (lambda: captioned().given("a very very dark picture"), TextError, "column 18: a caption may have 4 words"),
    "prompt": (lambda: nd.prompt(captioned(), '"bright" AND "blak"'), TextError, "column 15: the word 'blak'"),
    "no words": (lambda: plain().given("dark"), ParameterError, r"array \[2\].*got 'dark'. Captions need UNetConfig"),
    "tokens": (lambda: captioned().given([1.0, 2, 3]), ShapeError, r"shape \[4\]; got \(3,\)"),
    "fit, unknown": (fit(["dark", "drak"]), TextError, "the word 'drak' is not known.*'dark'"),
    "fit, tokens": (fit(np.full((2, 4), 9)), ParameterError, "whole numbers from 0 to 5; got 9"),
    "fit, length": (fit(np.ones((2, 3))), ShapeError, r"shape \[n, 4\]; got \(2, 3\)"),
    "fit, none": (fit(None), ShapeError, "reads captions of 4 tokens; the data's conditions have 0"),
    "fit, number": (fit(["dark", "bright"], nd.UNetConfig(shape=SHAPE)), ShapeError, "conditions must be numbers"),
})  # fmt: skip
def test_refused(call, error, words):
    assert_refused(call, error, words)
