"""The peers of the benchmarks: each has the law of a Gaussian that is known, and the page says what rows say."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from quick import quick_among

import numpyro_diffusion as nd

chains = pytest.importorskip("benchmarks.peers.chains")
from benchmarks.peers.fkc import fkc  # noqa: E402
from benchmarks.peers.page import page, summed, verdict  # noqa: E402
from benchmarks.peers.registry import Method, Problem, by_w2  # noqa: E402
from benchmarks.peers.superdiff import superdiff  # noqa: E402

pytestmark = pytest.mark.usefixtures("quick_compilation")
COUNT, COST = 1000, 200
# Product of N(0, 1) and N(2, 1/2), axis by axis: N(4/3, 1/3).
MEAN, VARIANCE = 4 / 3, 1 / 3


@cache
def factor(mean, variance):
    return nd.exact.GaussianMixture([[mean] * 2], [variance * np.eye(2)], name=f"n{mean:g}")


def at_zero(density, x):
    return density.log_density(x, 0.0)


def by_start(method, key):
    p, q = factor(0.0, 1.0), factor(2.0, 0.5)
    x, cost = method(key, Partial(at_zero, p), Partial(at_zero, q), p.sample(jax.random.key(5), COUNT), COST)
    assert cost <= 1.3 * COST
    return x


PEERS = {
    "NUTS": partial(by_start, chains.nuts),
    "tempered SMC": partial(by_start, chains.tempered_smc),
    "Feynman-Kac correctors": lambda key: fkc(key, factor(0.0, 1.0) * factor(2.0, 0.5), COUNT, COST).samples,
}


@pytest.mark.parametrize("name", quick_among(PEERS, {"Feynman-Kac correctors"}))
def test_peers_sample_the_product(name):
    x = np.asarray(PEERS[name](jax.random.key(0)))
    # Resampling leaves fewer independent chains than there are; a step of Euler's an error of its order.
    independent = COUNT / 3
    np.testing.assert_allclose(x.mean(0), MEAN, atol=5 * np.sqrt(VARIANCE / independent))
    np.testing.assert_allclose(x.var(0), VARIANCE, rtol=5 * np.sqrt(2 / independent))


def test_superdiff_and_goes_where_both_densities_are_equal():
    # N(-1, 1) and N(1, 1) are equal on the line through zero, across which nothing is left.
    apart = [nd.exact.GaussianMixture([[m, 0.0]], [np.eye(2)], name=f"m{m:g}") for m in (-1.0, 1.0)]
    x = np.asarray(superdiff(jax.random.key(0), apart[0] * apart[1], COUNT, COST, is_or=False))
    assert np.abs(x[:, 0]).max() < 0.2
    np.testing.assert_allclose(x[:, 1].var(), 1.0, rtol=5 * np.sqrt(2 / COUNT))


@pytest.mark.slow
def test_distances_are_held_against_exact_draws():
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((20_000, 2))
    sets = [(rng.standard_normal((COUNT, 2)), truth) for _ in range(5)]
    exact, shifted = sets[0][0], sets[0][0] + 0.5
    lost = np.where(np.arange(COUNT)[:, None] < 100, np.nan, exact)
    ratios = [(f := by_w2(x, truth, sets))["distance"] / f["floor"] for x in (exact, shifted, lost)]
    assert 0.5 < ratios[0] < 1.5 and ratios[1] > 5 and ratios[2] > 1.3
    assert by_w2(lost, truth, sets)["lost"] == pytest.approx(0.1)
    # A shift by a vector v is |v| / sqrt(d) of distance.
    assert by_w2(shifted, truth, sets)["distance"] == pytest.approx(0.5, rel=0.15)


def rows_of(ratios, **more):
    return {str(i): {"distance": r, "floor": 1.0, "processor seconds": 2.0, "machine": "m", "commit": "c"} | more
            for i, r in enumerate(ratios)}  # fmt: skip


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [
        ([1.0, 1.1], "yes"),
        ([1.2, 1.5], "no?"),
        ([1.0, 1.5], "yes?"),
        ([3.0, 3.1], "no"),
        ([1.0], "yes?"),
        ([None], "no"),
    ],
)
def test_verdicts(ratios, expected):
    assert verdict(summed(rows_of(ratios))) == expected


def test_losses_stand_like_wins():
    never = lambda seed: {}
    problem = Problem("text", {name: Method("w", never) for name in ("ours", "A", "B")}, {"C": "no"})
    found = {
        "P: ours": rows_of([1.2, 1.2], evaluations=100.0), "P: A": rows_of([1.1, 1.1], evaluations=50.0),
        "P: B": rows_of([2.0, 2.0], evaluations=10.0),
    }  # fmt: skip
    line = next(row for row in page({"P": problem}, found).splitlines() if row.startswith("| P |"))
    assert [cell.strip() for cell in line.split("|")[2:-1]] == [
        "A (1.10), ours (1.20)", "B (2.00)", "C", "A: nearer, fewer evaluations",
    ]  # fmt: skip
    # A sampler that lost everything is no nearer for it.
    found["P: A"] = rows_of([None, None], evaluations=50.0)
    assert "| P | ours (1.20) | A (inf), B (2.00) | C | no |" in page({"P": problem}, found)


def test_the_likelihoods_of_the_reference_posteriors():
    reference = pytest.importorskip("benchmarks.peers.reference_posteriors")
    theta = jnp.array([0.2, -0.4])
    # Given theta, y has the law of the simulator: its density integrates to one over the plane.
    axis = (jnp.arange(400) + 0.5) / 400 * 0.3 - 0.15
    centre = jnp.array([0.25 - 0.2 / jnp.sqrt(2.0), -0.6 / jnp.sqrt(2.0)])
    grid = jnp.stack(jnp.meshgrid(axis, axis), -1).reshape(-1, 2) + centre
    logs = jax.vmap(reference.two_moons, (0, None))(grid, theta)
    mass = jnp.sum(jnp.exp(logs)) * (0.3 / 400) ** 2
    assert float(mass) == pytest.approx(np.pi * np.sqrt(2 * np.pi) * 0.01, rel=0.01)
