"""What is said of data before a network is trained on them."""

import re

import jax
import numpy as np
import pytest

import numpyro_diffusion as nd
from numpyro_diffusion.errors import DiagnosticWarning
from numpyro_diffusion.train.doubts import doubts

RNG = np.random.default_rng(0)
NORMAL = RNG.normal(size=(3000, 2))
TURN = np.array([[np.cos(0.7), -np.sin(0.7)], [np.sin(0.7), np.cos(0.7)]])


def said(x, sigma_min=0.006, base=None, **settings) -> list[str]:
    return doubts(np.asarray(x), np.cov(x.T), sigma_min, base, **{"decays": False} | settings)


def beside(column):
    return np.column_stack([NORMAL[: len(column), 0], column])


UNSUSPICIOUS = {
    "normal": NORMAL,
    "a hundred rows": NORMAL[:100],
    "two far modes": NORMAL + 20.0 * RNG.integers(0, 2, size=(3000, 1)),
    "lognormal": np.exp(NORMAL),
    "three degrees of freedom": RNG.standard_t(3, size=(3000, 2)),
    "rounded to hundredths": np.round(NORMAL, 2),
    "counts with noise": beside(RNG.poisson(3.0, size=3000) + RNG.uniform(size=3000)),
    "more coordinates than rows": RNG.normal(size=(100, 200)),
    "sorted, each row six times": np.repeat(NORMAL[np.argsort(NORMAL[:, 0])], 6, axis=0),
    "on a circle": np.column_stack([np.cos(NORMAL[:, 0]), np.sin(NORMAL[:, 0])]),
}


@pytest.mark.parametrize("name", UNSUSPICIOUS)
def test_data_that_can_be_learnt_are_not_doubted(name):
    assert said(UNSUSPICIOUS[name]) == []


DOUBTED = {
    "narrow coordinates": (NORMAL * [1, 1e-4], r"1 of 2 coordinates \(1; standard deviations from 9.*e-05\)"),
    "a constant": (NORMAL * [1, 0], "some constant"),
    "a narrow direction": ((NORMAL * [1, 1e-3]) @ TURN.T, r"1 of 2 directions \(one mainly of coordinates 0, 1"),
    "a copy": (beside(NORMAL[:, 0]), "functions of others"),
    "Cauchy": (beside(RNG.standard_cauchy(3000)), r"coordinates 1 have heavy tails.*np\.arcsinh\(x / 1"),
    "one row far out": (np.append(NORMAL, [[1e3, 0.0]], axis=0), "coordinates 0 have heavy tails or rows far out"),
    "counts": (beside(RNG.poisson(3.0, size=3000)), r"coordinates 1 take few values.*uniform noise of one step"),
    "a category": (beside(RNG.integers(0, 2, 3000)), "coordinate 1 2 of them.*conditions="),
    "few rows": (NORMAL[:30], r"30 different rows are few.*MixtureBase"),
    "rows that repeat": (np.tile(NORMAL[:50], (60, 1)), "50 different rows are few"),
}


@pytest.mark.parametrize("name", DOUBTED)
def test_data_that_cannot_be_learnt_are_doubted_with_a_remedy(name):
    x, what = DOUBTED[name]
    (sentence,) = said(np.asarray(x, dtype=float))
    assert re.search(what, sentence), sentence


def test_few_rows_are_not_doubted_where_the_network_is_held_near_its_base():
    assert said(NORMAL[:30], decays=True) == []


def test_what_the_condition_determines_is_doubted():
    c = NORMAL[:, :1]
    noisy, exact = (
        np.column_stack([c[:, 0] * 2 + scale * RNG.normal(size=3000), NORMAL[:, 1]]) for scale in (0.1, 0.0)
    )
    assert said(noisy, base=nd.RegressionBase.fit(noisy, c)) == []
    (sentence,) = said(exact, base=nd.RegressionBase.fit(exact, c))
    assert re.search(r"the condition determines a direction of the data to .*sigma_min = 0\.006", sentence)


def test_few_rows_under_conditions_keep_their_base():
    x, c = NORMAL[:30], RNG.normal(size=(30, 1))
    (sentence,) = said(x, base=nd.RegressionBase.fit(x, c))
    assert "near what it stands on: training=" in sentence and "MixtureBase" not in sentence


def test_fit_says_so_before_it_trains():
    training = nd.TrainingConfig(num_steps=2, batch_size=8)
    with pytest.warns(DiagnosticWarning, match="30 different rows"):
        nd.fit(jax.random.key(0), NORMAL[:30], network=nd.NetworkConfig(width=8, num_blocks=1), training=training,
               progress_bar=False)  # fmt: skip
