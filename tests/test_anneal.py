"""The annealed sampler against closed forms: moments, evidence, weights, traps, one trace, bad input.

Annealed chains that were resampled share ancestors. A run reports that through the standard error of its log
evidence, e^2 = share - 1 / N with `share` the sum of squared family weights, so 1 / share counts independent chains and
moments are compared at se = sd sqrt(e^2 + 1 / N). All comparisons are at 5 sigma, with fixed keys.
"""

import dataclasses
import warnings

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from numpyro_diffusion import population as populations
from numpyro_diffusion import tuning
from numpyro_diffusion.anneal import anneal
from numpyro_diffusion.energy import EnergyDensity, NetworkConfig, ScoreModel
from numpyro_diffusion.errors import DiagnosticWarning, ParameterError, ScheduleError, ScoreOnlyError
from numpyro_diffusion.exact import GaussianMixture, UniformBox
from numpyro_diffusion.function import as_density
from numpyro_diffusion.kernels import HMC, MALA, UHMC, ULA, BlackJAX
from numpyro_diffusion.level import log_density_in_frame
from numpyro_diffusion.reverse import Reverse
from numpyro_diffusion.schedule import VarianceExploding, VariancePreserving

# One number of chains and one number of components for all: what has been compiled once serves the next test.
NUM_CHAINS = 2000
LEVELS = np.array([1.0, 0.95, 0.9, 0.8, 0.65, 0.5, 0.35, 0.2, 0.1, 0.0])
SCHEDULE = VariancePreserving.cosine()

pytestmark = [
    pytest.mark.filterwarnings("ignore::numpyro_diffusion.errors.DiagnosticWarning"),
    pytest.mark.usefixtures("quick_compilation"),
]


def sample(density, kernel, seed=0, **settings):
    settings = {"num_chains": NUM_CHAINS, "progress_bar": False} | settings
    return anneal(jax.random.key(seed), density, kernel, **settings)


@dataclasses.dataclass
class Problem:
    """A density at t = 0 with its integral and moments in closed form (or by quadrature)."""

    density: object
    log_z: float
    mean: np.ndarray
    second: np.ndarray


def mixture(seed, d, spread=1.3):
    """Three components with random places, shapes and weights."""
    draw = np.random.default_rng(seed)
    root = 0.25 * draw.normal(size=(3, d, d))
    covariances = root @ root.transpose(0, 2, 1) + 0.1 * np.eye(d)
    return GaussianMixture(spread * draw.normal(size=(3, d)), covariances, draw.uniform(0.5, 1.5, 3), SCHEDULE)


def gaussian(mean, covariance):
    """One Gaussian, written as three equal components."""
    return GaussianMixture(np.tile(mean, (3, 1)), np.tile(covariance, (3, 1, 1)), None, SCHEDULE)


def components(density):
    weights = np.exp(np.asarray(density.log_weights, np.float64))
    values, vectors = np.asarray(density.eigenvalues, np.float64), np.asarray(density.eigenvectors, np.float64)
    covariances = np.einsum("kij,kj,klj->kil", vectors, values, vectors)
    return list(zip(weights, np.asarray(density.means, np.float64), covariances, strict=True))


def of_components(density, parts):
    """Problem of an unnormalised Gaussian mixture, parts = [(mass, mean, covariance)]."""
    z = sum(w for w, _, _ in parts)
    mean = sum(w * m for w, m, _ in parts) / z
    second = sum(w * (C + np.outer(m, m)) for w, m, C in parts) / z
    return Problem(density, np.log(z), mean, second)


def of_product(p, q):
    """N(m, C) N(n, D) = N(m; n, C + D) N(mean, S), S^-1 = C^-1 + D^-1, mean = S (C^-1 m + D^-1 n)."""
    parts = []
    for w, m, C in components(p):
        for v, n, D in components(q):
            gap, total = m - n, C + D
            log_mass = -0.5 * gap @ np.linalg.solve(total, gap) - 0.5 * np.linalg.slogdet(2 * np.pi * total)[1]
            S = np.linalg.inv(np.linalg.inv(C) + np.linalg.inv(D))
            mean = S @ (np.linalg.solve(C, m) + np.linalg.solve(D, n))
            parts.append((w * v * np.exp(log_mass), mean, S))
    return of_components(p * q, parts)


def of_quadrature(density):
    axis = np.linspace(-7, 7, 801)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    weight = np.exp(np.asarray(jax.jit(density.log_prob)(jnp.asarray(grid, jnp.float32)), np.float64))
    z = weight.sum() * (axis[1] - axis[0]) ** 2
    weight /= weight.sum()
    return Problem(density, np.log(z), weight @ grid, (grid * weight[:, None]).T @ grid)


P2, Q2 = mixture(0, 2), mixture(1, 2)


@pytest.fixture(scope="module")
def problems():
    g = gaussian([1.0, -2.0], [[2.0, 0.3], [0.3, 0.05]])
    return {
        "gaussian": of_components(g, components(g)),
        "mixture": of_components(P2, components(P2)),
        "product": of_product(P2, Q2),
        "product in 5-d": of_product(mixture(2, 5, 0.6), mixture(3, 5, 0.6)),
        "harmonic mean": of_quadrature(P2 * Q2 / (0.4 * P2 + 0.6 * Q2)),
    }


@pytest.fixture(scope="module")
def runs(problems):
    """Default runs by (problem, kernel), made when first asked for."""
    made = {}

    def get(name, kernel, seed=0, **settings):
        key = (name, type(kernel).__name__, seed, *settings.items())
        if key not in made:
            made[key] = sample(problems[name].density, kernel, seed, **settings)
        return made[key]

    return get


def assert_moments(samples, problem, error, log_weights=None, allowance=0.0):
    """First and second moments within 5 standard errors; weights are self-normalised."""
    x = np.asarray(samples, np.float64)
    w = np.ones(len(x)) if log_weights is None else np.exp(np.asarray(log_weights, np.float64) - np.max(log_weights))
    w /= w.sum()
    i, j = np.triu_indices(x.shape[1])
    for values, truth in [(x, problem.mean), (x[:, i] * x[:, j], problem.second[i, j])]:
        mean = w @ values
        sd = np.sqrt(w @ (values - mean) ** 2)
        assert np.all(np.abs(mean - truth) < 5 * sd * np.sqrt(error**2 + 1 / len(x)) + allowance), (mean, truth)


# Right results.

CASES = [
    ("gaussian", HMC()),
    ("gaussian", MALA()),
    ("mixture", HMC()),
    ("mixture", MALA()),
    ("product", HMC()),
    ("product", MALA()),
    ("product", ULA()),
    ("product", UHMC()),
    ("product in 5-d", HMC()),
    ("harmonic mean", HMC()),
    pytest.param("product in 5-d", UHMC(), marks=pytest.mark.slow),
]
IDS = [f"{case[0]}-{type(case[1]).__name__}" for case in [getattr(c, "values", c) for c in CASES]]


@pytest.mark.parametrize("name, kernel", CASES, ids=IDS)
def test_moments_and_evidence(name, kernel, problems, runs):
    problem, run = problems[name], runs(name, kernel)
    assert run.samples.shape == (NUM_CHAINS, *problem.density.event_shape)
    assert np.all(run.log_weights == 0), "samples are equally weighted by default"
    assert run.levels[0] == 1 and run.levels[-1] == 0 and np.all(np.diff(run.levels) < 0)
    assert 0 < run.log_evidence_error < 0.1, "a check at 5 sigma needs a small sigma"
    assert abs(run.log_evidence - problem.log_z) < 5 * run.log_evidence_error
    assert_moments(run.samples, problem, run.log_evidence_error)


@pytest.mark.parametrize("kernel", [HMC(), ULA()], ids=["HMC", "ULA"])
def test_evidence_is_unbiased_and_its_error_honest(kernel, problems, runs):
    """exp(log_evidence) is unbiased; over seeds the reported standard errors match the scatter."""
    problem = problems["product"]
    seeds = [runs("product", kernel, seed) for seed in range(16)]
    ratio = np.exp([run.log_evidence - problem.log_z for run in seeds])
    reported = np.array([run.log_evidence_error for run in seeds])
    assert abs(ratio.mean() - 1) < 5 * max(ratio.std(), reported.mean()) / np.sqrt(len(ratio))
    assert 0.4 < ratio.std() / np.sqrt(np.mean(reported**2)) < 2


@pytest.mark.parametrize("kernel", [HMC(), ULA()], ids=["HMC", "ULA"])
def test_plain_ais_leaves_weights_that_reproduce_the_moments(kernel, problems, runs):
    problem, run = problems["product"], runs("product", kernel, resample_threshold=0)
    log_weights = np.asarray(run.log_weights, np.float64)
    assert np.std(log_weights) > 0.1 and not np.any(run.stats["resampled"])
    assert run.log_evidence == pytest.approx(np.log(np.mean(np.exp(log_weights))), abs=1e-4)
    assert abs(run.log_evidence - problem.log_z) < 5 * run.log_evidence_error < 0.5
    assert run.ess == pytest.approx(np.exp(log_weights).sum() ** 2 / (np.exp(2 * log_weights)).sum(), rel=1e-3)
    assert_moments(run.samples, problem, run.log_evidence_error, log_weights)


def test_without_their_weights_unadjusted_samples_are_biased(problems):
    """The check above can fail: few coarse levels and a coarse ULA step, weights dropped."""
    problem = problems["product"]
    run = sample(problem.density, ULA(0.3), levels=LEVELS, resample_threshold=0)
    assert_moments(run.samples, problem, run.log_evidence_error, run.log_weights)
    with pytest.raises(AssertionError):
        assert_moments(run.samples, problem, 0.0)


def test_identity_frame_agrees(problems):
    problem = problems["product"]
    run = sample(problem.density, HMC(), frame="identity", levels=60)
    assert run.log_evidence_error < 0.1
    assert abs(run.log_evidence - problem.log_z) < 5 * run.log_evidence_error
    assert_moments(run.samples, problem, run.log_evidence_error)


def test_mass_is_evidence(problems):
    """A weight multiplies its density: twice the denominator is half the mass."""
    scaled = sample(P2 * Q2 / (0.8 * P2 + 1.2 * Q2), HMC())
    assert abs(scaled.log_evidence - problems["harmonic mean"].log_z + np.log(2)) < 5 * scaled.log_evidence_error < 0.5


@pytest.mark.slow
def test_another_schedule_gives_the_same_answer():
    """Variance exploding at t = 0 is the same data density."""
    p, q = P2.with_schedule(VarianceExploding()), Q2.with_schedule(VarianceExploding())
    problem = of_product(P2, Q2)
    run = sample(p * q, MALA(), levels=40)
    assert abs(run.log_evidence - problem.log_z) < 5 * run.log_evidence_error < 0.5
    assert_moments(run.samples, problem, run.log_evidence_error)


def test_blackjax_adapter_anneals(problems):
    problem = problems["gaussian"]
    run = sample(problem.density, BlackJAX(blackjax.barker), levels=LEVELS)
    assert abs(run.log_evidence) < 5 * run.log_evidence_error < 0.5
    assert_moments(run.samples, problem, run.log_evidence_error)


@pytest.mark.parametrize("kernel", [HMC(), MALA()], ids=["HMC", "MALA"])
def test_step_sizes_are_tuned_to_the_target_acceptance(kernel, runs):
    run = runs("gaussian", kernel)
    assert np.all(np.abs(run.stats["acceptance_rate"] - kernel.target_acceptance) < 0.15)
    assert np.all(run.stats["step_size"] > 0)


# Settings that must not matter, and shapes.


def test_same_key_same_result(problems, runs):
    first, again = runs("product", HMC()), sample(problems["product"].density, HMC())
    np.testing.assert_array_equal(first.samples, again.samples)
    assert first.log_evidence == again.log_evidence
    assert not np.array_equal(first.samples, runs("product", HMC(), 1).samples)


@pytest.mark.parametrize("chain_batch_size", [300, 5000])
def test_chain_batch_size_does_not_matter(problems, chain_batch_size):
    density, settings = problems["product"].density, {"levels": LEVELS}
    whole = sample(density, HMC(0.5), **settings)
    pieces = sample(density, HMC(0.5), chain_batch_size=chain_batch_size, **settings)
    # An acceptance that hangs on the last bit may go the other way, so a chain in two hundred may differ.
    same = np.all(np.isclose(whole.samples, pieces.samples, rtol=1e-3, atol=1e-3), axis=1)
    assert same.mean() > 0.995
    assert pieces.log_evidence == pytest.approx(whole.log_evidence, abs=1e-3)


def test_history_and_statistics_by_level(problems):
    density = problems["product"].density
    run = sample(density, HMC(0.5), levels=LEVELS, keep_history=True)
    assert sorted(run.history) == ["acceptance_rate", "log_weight_increment"]
    for values in run.history.values():
        assert values.shape == (len(LEVELS), NUM_CHAINS)
    for name, values in run.stats.items():
        assert values.shape == (len(LEVELS),), name
    np.testing.assert_allclose(run.history["acceptance_rate"].mean(1), run.stats["acceptance_rate"], rtol=1e-4)
    np.testing.assert_allclose(
        run.history["log_weight_increment"].mean(1), run.stats["log_weight_increment"], rtol=1e-3, atol=1e-4
    )
    assert run.stats["log_evidence"][-1] == pytest.approx(run.log_evidence, abs=1e-5)
    assert run.evaluations_per_chain == len(LEVELS) * (1 + 2 * 3)
    assert sample(density, HMC(0.5), levels=LEVELS).history is None


def test_levels_given_counted_or_placed(problems, runs):
    density = problems["product"].density
    given = sample(density, HMC(0.5), levels=list(LEVELS))
    np.testing.assert_array_equal(given.levels, LEVELS)
    np.testing.assert_allclose(given.stats["step_size"], 0.5)
    counted = sample(density, HMC(0.5), levels=12)
    assert len(counted.levels) == 12 and counted.levels[0] == 1 and counted.levels[-1] == 0
    placed = runs("product", HMC())
    finer = runs("product", HMC(), level_ess=0.99)
    assert 2 < len(placed.levels) < len(finer.levels)
    # Their conditional ESS is what was asked for, up to the pilot's noise; the first is the start itself.
    assert np.all(placed.stats["conditional_ess"] > 0.85) and np.all(finer.stats["conditional_ess"] > 0.95)
    per_level = sample(density, HMC(np.linspace(0.6, 0.4, len(LEVELS))), levels=LEVELS)
    np.testing.assert_allclose(per_level.stats["step_size"], np.linspace(0.6, 0.4, len(LEVELS)), rtol=1e-6)


def test_resample_threshold(problems, runs):
    density = problems["product"].density
    for threshold in [0.5, 0.9]:
        stats = sample(density, HMC(0.5), levels=LEVELS, resample_threshold=threshold).stats
        np.testing.assert_array_equal(stats["resampled"][:-1], stats["ess"][:-1] < threshold)
        assert stats["resampled"][-1], "always before the last level's steps"
        assert 1 <= np.sum(stats["resampled"]) < len(LEVELS)


# The trap of the stale state.


def test_a_state_carried_across_levels_is_silently_wrong_and_advance_is_not():
    """A cached log density of the old level makes MALA accept against the wrong density, at a healthy rate."""
    sd = 0.3
    density, levels = gaussian([0.0, 0.0], sd**2 * np.eye(2)), SCHEDULE.levels(40)
    kernel, start_key, key = MALA(), jax.random.key(0), jax.random.key(1)

    @jax.jit
    def steps(density, population, key, t, step_size, refresh):
        log_prob = log_density_in_frame(density, t, "identity")

        def move(key, state):
            value, gradient = jax.value_and_grad(log_prob)(state.position)
            state = state._replace(
                logdensity=jnp.where(refresh, value, state.logdensity),
                logdensity_grad=jnp.where(refresh, gradient, state.logdensity_grad),
            )
            step = lambda s, k: kernel.step(k, s, log_prob, step_size)
            state, info = jax.lax.scan(step, state, jax.random.split(key, 2))
            return state, info.acceptance_rate.mean()

        state, rate = jax.vmap(move)(populations.chain_keys(key, NUM_CHAINS), population.state)
        return population._replace(state=state), rate.mean()

    def by_hand(refresh):
        population, rates = populations.start(density, start_key, num_chains=NUM_CHAINS, frame="identity"), []
        for i, t in enumerate(levels):
            fresh = refresh or i == 0
            population, rate = steps(density, population, jax.random.fold_in(key, i), t, 0.04, fresh)
            rates.append(rate)
        return np.std(population.state.position), np.mean(rates)

    se = sd / np.sqrt(2 * 2 * NUM_CHAINS)
    stale, rate = by_hand(refresh=False)
    assert stale > 2 * sd and rate > 0.6, "wrong by a factor, and nothing warns"
    right, _ = by_hand(refresh=True)
    # 80 small steps leave a little of the start behind; weights would correct it.
    assert abs(right - sd) < 5 * se + 0.02

    population = populations.start(density, start_key, num_chains=NUM_CHAINS, frame="identity")
    for i, t in enumerate(levels):
        population, stats, _ = populations.advance(
            density, kernel.without_step_size(), population, jax.random.fold_in(key, i), float(t), float(t), 0.04, 0.5,
            num_steps=2, frame="identity", weighted=True, predictor=False, chain_batch_size=None,
        )  # fmt: skip
        state = population.state
        log_prob = log_density_in_frame(density, float(t), "identity")
        value, gradient = jax.vmap(jax.value_and_grad(log_prob))(state.position[:50])
        np.testing.assert_allclose(state.logdensity[:50], value, rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(state.logdensity_grad[:50], gradient, rtol=1e-3, atol=1e-2)
    weights = jax.nn.softmax(population.log_weight)
    moment = float(jnp.sqrt(jnp.sum(weights[:, None] * population.state.position**2) / 2))
    families = jnp.zeros(NUM_CHAINS).at[population.ancestor].add(weights)
    assert abs(moment - sd) < 5 * sd * np.sqrt(float(jnp.sum(families**2)) / 4)
    assert abs(float(population.evidence())) < 5 * np.sqrt(float(jnp.sum(families**2)))


# The coordinates of moves.


def pilot_shape(points, gradients):
    """Covariance C and information F of equally weighted points and gradients."""
    points, gradients = np.asarray(points, dtype=float), np.asarray(gradients, dtype=float)
    return tuning._Shape(jnp.asarray(np.cov(points.T)), jnp.asarray(gradients.T @ gradients / len(points)))


def test_scale_of_a_gaussian_is_the_root_of_its_covariance():
    covariance = np.array([[2.0, 0.6, 0.0], [0.6, 1.0, -0.3], [0.0, -0.3, 0.4]])
    shape = tuning._Shape(jnp.asarray(covariance), jnp.linalg.inv(jnp.asarray(covariance)))
    np.testing.assert_allclose(shape.scale(10**9), np.linalg.cholesky(covariance), rtol=1e-4, atol=1e-5)


def test_scale_of_parted_modes_is_that_of_one():
    modes = GaussianMixture([[-20.0, 0.0], [20.0, 0.0]], [np.diag([1.0, 4.0])] * 2)
    x = modes.sample(jax.random.key(0), 20_000)
    gradients = jax.vmap(jax.grad(lambda z: modes.log_prob(z, 0.0)))(x)
    shape = pilot_shape(x, gradients)
    assert shape.covariance[0, 0] > 350
    # Twice the information at most: (C^-1 + F) / 2 with C^-1 = 0 along the line of modes.
    np.testing.assert_allclose(shape.scale(len(x)), np.diag([np.sqrt(2), 2.0]), rtol=0.05, atol=0.05)


def test_scale_without_gradients_is_that_of_the_covariance():
    x = np.random.default_rng(0).uniform(-1, 1, (20_000, 2)) * [3.0, 0.5]
    scale = pilot_shape(x, np.zeros_like(x)).scale(len(x))
    np.testing.assert_allclose(scale, np.sqrt(2 / 3) * np.diag([3.0, 0.5]), rtol=0.03, atol=0.03)


def test_a_chain_whose_gradient_fails_has_no_say_in_the_scale():
    population = populations.start(P2, jax.random.key(0), num_chains=NUM_CHAINS, frame="whitened")
    u, eye = population.state.position, jnp.eye(2)

    def learn(gradients):
        state = population.state._replace(logdensity_grad=gradients)
        return tuning._learn(population._replace(state=state), tuning._Shape(eye, eye), 3 * eye)

    np.testing.assert_allclose(learn(-u.at[0].set(jnp.nan))[1], learn(-u)[1], rtol=0.01, atol=0.01)
    # None left: all stays as it was.
    shape, scale = learn(jnp.full_like(u, jnp.nan))
    np.testing.assert_array_equal(scale, 3 * eye)
    np.testing.assert_array_equal(shape.information, eye)


# One trace.


def cache_sizes():
    functions = [populations.advance, populations.start, populations.points, tuning._pilot_level, tuning._next_level]
    return [f._cache_size() for f in functions]


def test_one_trace_for_other_weights_coefficients_step_sizes_and_levels(problems, runs):
    density = problems["product"].density
    runs("product", HMC())
    before = cache_sizes()
    sample(mixture(7, 2) * mixture(8, 2), HMC())  # retrained
    sample(P2**0.7 * Q2**1.2, HMC())  # re-weighted
    sample(density, HMC(0.3), levels=LEVELS)  # other step sizes and levels
    sample(density, HMC(np.linspace(0.6, 0.3, 7)), levels=7)
    sample(density, HMC(), levels=9)
    sample(density, HMC(0.4), level_ess=0.8)
    sample(density, HMC(persistence=0.5), resample_threshold=0)
    assert cache_sizes() == before
    sample(density, HMC(0.4, num_integration_steps=2), levels=LEVELS)
    assert cache_sizes() != before, "the count can tell"


def network_density(kind, seed):
    config = NetworkConfig(width=8, num_blocks=1, embedding_size=4)
    return kind(
        jax.random.key(seed), (2,), SCHEDULE, np.zeros(2), np.eye(2), 0.01, 100.0, config, "l2", kind is EnergyDensity
    )


def test_one_trace_for_a_retrained_network():
    first, second = network_density(EnergyDensity, 0), network_density(EnergyDensity, 1)
    run = sample(first, MALA(0.3), levels=LEVELS)
    before = cache_sizes()
    other = sample(second, MALA(0.3), levels=LEVELS)
    assert cache_sizes() == before
    assert not np.array_equal(run.samples, other.samples), "the weights did change"


# Score-only densities.


def test_score_only_densities():
    density = network_density(ScoreModel, 0)
    for kernel in [HMC(0.3), MALA(0.3)]:
        with pytest.raises(ScoreOnlyError, match="accepts by log densities.*nd.ULA, nd.UHMC or nd.Reverse"):
            sample(density, kernel)
    with pytest.raises(ParameterError, match="has only a score.*Give the kernel a step_size"):
        sample(density, UHMC())
    run = sample(density, UHMC(0.3), levels=LEVELS)
    assert np.isnan(run.log_evidence) and np.isnan(run.log_evidence_error)
    assert np.all(np.isfinite(run.samples)) and np.all(run.log_weights == 0)
    reverse = sample(density, Reverse(), levels=10)
    assert np.all(np.isfinite(reverse.samples)) and np.isnan(reverse.log_evidence)


# Energies that fail.


def hole(value, low, high):
    """N(0, I) at every level, but `value` where x_0 > 1 while low <= t < high. One function, so one trace."""
    parameters = jnp.array([value, low, high])
    return as_density(_holed, (2,), SCHEDULE, parameters=parameters, mean=np.zeros(2), covariance=np.eye(2))


def _holed(parameters, x, t):
    value, low, high = parameters
    normal = -0.5 * jnp.sum(x**2) - jnp.log(2 * jnp.pi)
    return jnp.where((x[0] > 1) & (t >= low) & (t < high), value, normal)


@pytest.mark.parametrize("value", [np.nan, -np.inf, np.inf], ids=str)
@pytest.mark.parametrize("high", [2.0, 0.5], ids=["always", "late"])
@pytest.mark.parametrize("kernel", [HMC(), UHMC()], ids=["HMC", "UHMC"])
def test_nan_energies_are_counted_and_never_sampled(value, high, kernel):
    """What is left is a truncated Gaussian: Z = Phi(1), E x_0 = -phi(1) / Phi(1), E x_0^2 = 1 - phi(1) / Phi(1)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DiagnosticWarning)
        run = sample(hole(value, 0.0, high), kernel, levels=LEVELS, keep_history=True)
    assert np.all(np.isfinite(run.samples)) and np.all(run.samples[:, 0] <= 1)
    assert np.sum(run.stats["divergences"]) > 0
    for name, values in run.stats.items():
        assert np.all(np.isfinite(values)), name
    killed = np.isneginf(run.history["log_weight_increment"])
    dead = (killed[0] if high > 1 else killed[np.searchsorted(-LEVELS, -high, side="right")]).mean()
    assert abs(dead - norm.sf(1)) < 5 * np.sqrt(norm.sf(1) * norm.cdf(1) / NUM_CHAINS)
    assert abs(run.log_evidence - norm.logcdf(1)) < 5 * run.log_evidence_error < 0.5
    ratio = norm.pdf(1) / norm.cdf(1)
    truth = Problem(None, norm.logcdf(1), np.array([-ratio, 0.0]), np.diag([1 - ratio, 1.0]))
    assert_moments(run.samples, truth, run.log_evidence_error)


@pytest.mark.parametrize("value", [np.nan, -np.inf, np.inf], ids=str)
def test_chains_once_dead_stay_dead(value):
    """A hole that opens and closes again: chains that fell in must not come back with NaN or infinite weight."""
    run = sample(hole(value, 0.3, 0.6), HMC(), levels=LEVELS)
    assert np.isfinite(run.log_evidence) and np.all(np.isfinite(run.samples))
    weights = sample(hole(value, 0.3, 0.6), HMC(), levels=LEVELS, resample_threshold=0).log_weights
    assert not np.any(np.isnan(weights)) and np.any(np.isneginf(weights)) and np.max(weights) < 20


def test_a_density_that_is_nan_everywhere_ends_without_an_evidence():
    nowhere = as_density(lambda x, t: jnp.nan * jnp.sum(x), (2,), SCHEDULE)
    run = sample(nowhere, MALA(0.3), levels=LEVELS, num_chains=50)
    assert not np.isfinite(run.log_evidence)
    assert np.all(np.isfinite(run.samples)), "no chain ever moved"


# Reverse diffusion.


def test_reverse_diffusion_of_a_mixture(problems):
    problem = problems["mixture"]
    run = sample(problem.density, Reverse(), levels=200)
    assert run.samples.shape == (NUM_CHAINS, 2) and len(run.levels) == 200
    assert np.isnan(run.log_evidence) and np.all(run.log_weights == 0)
    assert run.evaluations_per_chain == 199
    assert_moments(run.samples, problem, 0.0, allowance=0.03)


def test_reverse_diffusion_of_a_product_is_biased(problems):
    """Why the annealed samplers exist: the noised product is not the product of the noised."""
    problem = problems["product"]
    run = sample(problem.density, Reverse(), levels=200)
    with pytest.raises(AssertionError):
        assert_moments(run.samples, problem, 0.0, allowance=0.03)


def test_predictor_runs_without_weights(problems):
    problem = problems["mixture"]
    run = sample(problem.density, HMC(), predictor=True, levels=100)
    assert np.isnan(run.log_evidence) and np.isnan(run.log_evidence_error) and np.all(run.log_weights == 0)
    assert not np.any(run.stats["resampled"])
    assert_moments(run.samples, problem, 0.0, allowance=0.03)


# Bad input.


@pytest.mark.parametrize(
    "settings, error, message",
    [
        ({"levels": [0.1, 0.5]}, ScheduleError, "levels must decrease; got 0.1 before 0.5. Reverse"),
        ({"levels": [1.0, 0.5, 0.5, 0.0]}, ScheduleError, "levels must decrease; got 0.5 before 0.5"),
        ({"levels": [1.5, 0.0]}, ScheduleError, r"levels must lie in \[0, 1\]; got 0.0 to 1.5"),
        ({"levels": [1.0, -0.1]}, ScheduleError, r"levels must lie in \[0, 1\]; got -0.1"),
        ({"levels": [1.0, np.nan, 0.0]}, ScheduleError, r"levels must lie in \[0, 1\]; got nan"),
        ({"levels": [1.0]}, ScheduleError, r"at least two times; got shape \(1,\)"),
        ({"levels": [[1.0, 0.0]]}, ScheduleError, r"at least two times; got shape \(1, 2\)"),
        ({"levels": 1}, ParameterError, "num_levels must be at least 2; got 1"),
        ({"levels": "many"}, ScheduleError, "levels must be None, a number of levels, or a list of times; got 'many'"),
        ({"level_ess": 1.0}, ParameterError, r"level_ess must lie in \(0, 1\); got 1.0"),
        ({"level_ess": 0.0}, ParameterError, r"level_ess must lie in \(0, 1\); got 0.0"),
        ({"num_chains": 0}, ParameterError, "num_chains must be an integer >= 1; got 0"),
        ({"num_chains": 10.0}, ParameterError, "num_chains must be an integer >= 1; got 10.0"),
        ({"num_steps": 0}, ParameterError, "num_steps must be an integer >= 1; got 0"),
        ({"resample_threshold": -0.1}, ParameterError, r"resample_threshold must lie in \[0, 1\]; got -0.1"),
        ({"resample_threshold": 1.1}, ParameterError, r"resample_threshold must lie in \[0, 1\]; got 1.1"),
        ({"resample_threshold": np.nan}, ParameterError, r"resample_threshold must lie in \[0, 1\]; got nan"),
        ({"chain_batch_size": 0}, ParameterError, "chain_batch_size must be an integer >= 1; got 0"),
        ({"chain_batch_size": 2.5}, ParameterError, "chain_batch_size must be an integer >= 1; got 2.5"),
        ({"frame": "polar"}, ParameterError, "frame must be one of .*'whitened'.*; got 'polar'"),
    ],
    ids=str,
)
def test_bad_settings(settings, error, message):
    with pytest.raises(error, match=message):
        sample(P2, HMC(), **settings)


@pytest.mark.parametrize("levels", [[0.1, 0.5], [1.5, 0.0], 1, "many"], ids=str)
def test_bad_levels_of_reverse_diffusion(levels):
    with pytest.raises((ScheduleError, ParameterError)):
        sample(P2, Reverse(), levels=levels)


def test_step_sizes_must_match_the_levels():
    with pytest.raises(ParameterError, match="got 3 step sizes for 10 levels"):
        sample(P2, HMC([0.1, 0.2, 0.3]), levels=LEVELS)
    with pytest.raises(ParameterError, match="got 3 step sizes for levels placed by conditional ESS"):
        sample(P2, HMC([0.1, 0.2, 0.3]))


@pytest.mark.parametrize("bad", [lambda x, t: 0.0, 3.0, None, "ring"], ids=["function", "number", "None", "name"])
def test_what_is_not_a_density(bad):
    with pytest.raises(TypeError, match="takes a density; got .*nd.as_density"):
        sample(bad, HMC())


@pytest.mark.parametrize("bad", [HMC, 0.1, None, blackjax.nuts], ids=["class", "number", "None", "blackjax"])
def test_what_is_not_a_kernel(bad):
    with pytest.raises(TypeError, match=r"takes a kernel such as nd.HMC\(\)"):
        sample(P2, bad)


@pytest.mark.slow
def test_a_box_has_hard_walls():
    """The log density is -inf outside at t = 0: divergences there, all samples inside, Z of a cut Gaussian."""
    box = UniformBox([-1.0, -1.0], [1.0, 1.0], SCHEDULE)
    g = gaussian([0.5, 0.0], 0.5 * np.eye(2))
    run = sample(box * g, HMC())
    assert np.all(np.abs(run.samples) <= 1)
    a, b = (np.array([-1.5, -1.0]) / np.sqrt(0.5)), (np.array([0.5, 1.0]) / np.sqrt(0.5))
    log_z = np.sum(np.log(norm.cdf(b) - norm.cdf(a))) - np.log(4)
    assert abs(run.log_evidence - log_z) < 5 * run.log_evidence_error < 0.5
