"""Prompts, over a density whose conditionals are known: twelve modes, and captions that name some of them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from densities import log_prob_of
from refusals import assert_refused, refusals

import numpyro_diffusion as nd
from numpyro_diffusion.compose.grammar import And, Caption, Not, Or, Power, fold, parse
from numpyro_diffusion.errors import ArgumentTypeError, ParameterError, TextError

WORDS = (("cube", "ball"), ("sand", "grass", "snow"), ("sunny", "night"))
MODES = np.array(list(itertools.product(*WORDS)))
PLACES = np.array(list(itertools.product((-4.0, 4.0), (-8.0, 0.0, 8.0), (-1.5, 1.5)))) @ [[1, 0], [0, 1], [0, 1]]
SHARES = np.arange(1.0, 13.0) / 78
TEXT = nd.TextConfig(words=(*itertools.chain(*WORDS), "a", "on"))
POINTS = np.random.default_rng(0).uniform(-9, 9, (20, 2)).astype(np.float32)


def is_true(caption):
    words = set(caption.split()) - {"a", "on"}
    return np.array([words <= set(mode) for mode in MODES])


class Known:
    """A density of which every conditional is known exactly."""

    def given(self, caption):
        if caption is None:
            return _density(np.ones(12, bool), "p")
        TEXT.encode(caption)
        return _density(is_true(caption), f'p|"{caption}"')


def _density(there, name):
    covariances = np.tile(0.05 * np.eye(2), (12, 1, 1))
    return nd.exact.GaussianMixture(PLACES[there], covariances[there], SHARES[there], name=name)


def ratios(prompt, **settings):
    """v [12] = density / p at the modes, at t = 0: these are so far apart that it is what the mode's mass becomes."""
    density = nd.prompt(Known(), prompt, **settings)
    logs = log_prob_of(density, PLACES) - log_prob_of(Known().given(None), PLACES)
    return np.exp(np.asarray(logs, dtype=np.float64))


def share(caption):
    return SHARES[is_true(caption)].sum()


def test_a_caption_is_its_conditional_and_and_is_that_of_all():
    assert np.allclose(ratios('"a cube"'), is_true("cube") / share("cube"), atol=1e-4)
    found = ratios('"a cube" AND "sand" AND "night"')
    expected = is_true("cube sand night") / (share("cube") * share("sand") * share("night"))
    assert np.allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_or_has_the_shares_that_were_asked_for():
    found = SHARES * ratios('0.3 "sand" OR 0.9 "grass"')
    assert np.isclose(found[is_true("sand")].sum(), 0.25, rtol=1e-3)
    assert np.isclose(found[is_true("grass")].sum(), 0.75, rtol=1e-3)
    assert found.sum() == pytest.approx(1, rel=1e-3)
    equal = SHARES * ratios("'sand' or 'grass' or 'snow'")
    assert np.allclose([equal[is_true(ground)].sum() for ground in WORDS[1]], 1 / 3, rtol=1e-3)


@pytest.mark.parametrize(("prompt", "strength"), [('NOT "sunny"', 1.0), ('NOT^0.5 "sunny"', 0.5)])
@pytest.mark.parametrize("floor", [0.01, 0.1])
def test_not_leaves_what_is_false_and_divides_what_is_true(prompt, strength, floor):
    found, there = ratios(prompt, floor=floor), is_true("sunny")
    assert np.allclose(found[~there], 1, rtol=1e-3)
    left = (floor / ((1 - floor) / share("sunny") + floor)) ** strength
    assert np.allclose(found[there], left, rtol=1e-3)
    assert np.all(found <= 1 + 1e-3)  # never more than there was: what has finite mass keeps it


def test_nested_prompts_mean_what_their_trees_say():
    prompt = '"a cube" AND ("sand" OR "grass") AND NOT ("sunny" AND "sand")'
    mass = SHARES * ratios(prompt)
    right = is_true("cube") & (is_true("sand") | is_true("grass")) & ~is_true("sunny sand")
    assert mass[right].sum() / mass.sum() > 0.98
    # Log evidence: of what contradicts itself it is far lower.
    assert np.log(mass.sum()) > -1.5 and np.log((SHARES * ratios('"a cube" AND "a ball"')).sum()) < -50
    assert np.isclose((SHARES * ratios('NOT "snow"')).sum(), 1 - share("snow"), atol=0.01)


@pytest.mark.parametrize("t", [0.0, 0.3, 0.8])
def test_a_prompt_is_the_formula_of_its_module(t):
    d = Known().given
    p, cube, sand, grass, sunny = (d(c) for c in (None, "a cube", "sand", "grass", "sunny"))
    by_hand = {
        '"a cube" AND ("sand" OR "grass")': cube * (0.5 * sand + 0.5 * grass) / p,
        '1 "a cube"^2 AND "sand" OR 3 "grass"': 0.25 * (cube**2 / p * sand / p) + 0.75 * grass,
        '"a cube" AND NOT^0.5 "sunny"': 0.01**0.5 * cube * (p / (0.99 * sunny + 0.01 * p)) ** 0.5,
        '("sand")^1.5': sand**1.5 / p**0.5,
    }
    for prompt, formula in by_hand.items():
        difference = log_prob_of(nd.prompt(Known(), prompt), POINTS, t) - log_prob_of(formula, POINTS, t)
        assert np.max(np.abs(difference)) < 2e-3 * np.max(np.abs(log_prob_of(formula, POINTS, t))), prompt
    plain = nd.prompt(Known(), 'NOT^0.5 "sunny"', floor=0)
    assert np.allclose(log_prob_of(plain, POINTS, t), log_prob_of(p**1.5 / sunny**0.5, POINTS, t), rtol=1e-4, atol=1e-2)


def test_the_formula_of_the_paper_runs_verbatim():
    d, alpha = Known().given, 0.3
    density = d("a cube") * (0.5 * d("sand") + 0.5 * d("grass")) / d("sunny") ** alpha
    assert repr(density) == 'p|"a cube" * (0.5 * p|"sand" + 0.5 * p|"grass") / p|"sunny" ** 0.3'
    logs = {c: np.asarray(log_prob_of(d(c), POINTS, 0.6)) for c in ("a cube", "sand", "grass", "sunny")}
    expected = logs["a cube"] + np.logaddexp(logs["sand"], logs["grass"]) - np.log(2) - alpha * logs["sunny"]
    assert np.allclose(log_prob_of(density, POINTS, 0.6), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.slow
def test_a_run_of_a_prompt_finds_its_shares_and_its_evidence():
    prompt = '"a cube" AND (0.25 "sand" OR 0.75 "grass") AND NOT "night"'
    run = nd.anneal(
        jax.random.key(0), nd.prompt(Known(), prompt), nd.HMC(), num_chains=400, levels=12, progress_bar=False
    )
    nearest = np.argmin(np.linalg.norm(np.asarray(run.samples)[:, None] - PLACES, axis=-1), axis=1)
    mass = SHARES * ratios(prompt)
    found = np.bincount(nearest, minlength=12) / 400
    error = np.sqrt(mass / mass.sum() / 400) + 0.01
    assert np.all(np.abs(found - mass / mass.sum()) < 5 * error)
    assert abs(run.log_evidence - np.log(mass.sum())) < 5 * run.log_evidence_error + 0.05


def test_the_floor_may_be_traced():
    at = jax.jit(lambda f: nd.prompt(Known(), 'NOT "sunny"', floor=f).log_prob(POINTS, 0.5))
    for floor in (0.02, 0.2):
        expected = log_prob_of(nd.prompt(Known(), 'NOT "sunny"', floor=floor), POINTS, 0.5)
        assert np.allclose(at(jnp.asarray(floor)), expected, rtol=1e-4, atol=1e-3)


def test_trees():
    tree = parse('"a" OR "b" AND not^.5 \'c\'^3')
    assert tree == Or(
        (Caption("a", 1), And((Caption("b", 8), Not((Power((Caption("c", 23),), 3.0),), 0.5)))), (1.0, 1.0)
    )
    assert parse('2 "a" or 3e-1 ("b")') == Or((Caption("a", 3), Caption("b", 16)), (2.0, 0.3))
    count = fold(parse('"a" AND NOT ("b" OR "c")'), lambda _: 1, lambda _, parts: sum(parts))
    assert count == 3


WRONG = {
    "empty": ("", "column 1: a prompt needs a caption"),
    "blank": ("  ", "a prompt needs a caption"),
    "empty caption": ('"sand" AND ""', "column 13: a caption needs a word"),
    "unknown word": ('"a cube" AND "a bal"', r"column 17: the word 'bal' is not known.*'ball'.*\n {18}\^\^\^$"),
    "open": ('("sand" OR "snow"', r"column 1: there is no \) for this \("),
    "closed": ('"sand") OR "snow"', r"column 7: there is no \( for this \)"),
    "quote": ('"sand" AND "snow', "column 12: this quote is not closed"),
    "no quotes": ("a cube", "column 1: captions stand in quotes"),
    "two captions": ('"sand" "snow"', "column 8: AND or OR must stand between"),
    "two in parentheses": ('("sand" "snow")', r"column 9: AND, OR or \) must stand here"),
    "no operand": ('"sand" AND', "column 11: a caption in quotes"),
    "some weights": ('0.3 "sand" OR "snow"', "column 15: give all terms of an OR a weight"),
    "a lone weight": ('2 "sand"', "column 1: a weight belongs to an OR"),
    "no weight": ('0 "sand" OR 1 "snow"', "column 1: a weight must be a positive number"),
    "no strength": ('NOT^ "sand"', "column 6: the strength of a NOT must be a positive number"),
    "mark": ('"sand" & "snow"', "column 8: this means nothing here"),
    "deep": ("(" * 60 + '"sand"' + ")" * 60, "50 deep"),
}


@pytest.mark.parametrize(("prompt", "words"), WRONG.values(), ids=WRONG)
def test_a_wrong_prompt_is_pointed_at(prompt, words):
    assert_refused(lambda: nd.prompt(Known(), prompt), TextError, words)


@refusals({
    "no text": (lambda: nd.prompt(Known(), 3), ArgumentTypeError, "a prompt must be text; got 3"),
    "no conditions": (lambda: nd.prompt(Known().given(None), '"sand"'), TypeError, "trained with conditions"),
    "floor": (lambda: nd.prompt(Known(), '"sand"', floor=1), ParameterError, r"floor must lie in \[0, 1\); got 1"),
})  # fmt: skip
def test_refused(call, error, words):
    assert_refused(call, error, words)


def test_the_error_says_where_in_numbers_too():
    with pytest.raises(TextError) as caught:
        nd.prompt(Known(), '"a cube" AND "a bal"')
    assert (caught.value.start, caught.value.end) == (16, 19)
