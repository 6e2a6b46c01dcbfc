"""How many levels an accuracy takes, by what a coarse pilot measured."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from exact_problems import P2, Q2, SCHEDULE, gaussian, sample

import numpyro_diffusion as nd
from numpyro_diffusion.annealing import pilot as tuning
from numpyro_diffusion.annealing.effort import CLOSEST_ESS, FALL, Measured, read_plan
from numpyro_diffusion.annealing.kernels import HMC, MALA
from numpyro_diffusion.annealing.level import level_at
from numpyro_diffusion.annealing.plan import Plan
from numpyro_diffusion.annealing.settings import DEFAULT_VARIANCE, POSTERIOR_ESS, Settings
from numpyro_diffusion.diagnose.findings import findings
from numpyro_diffusion.errors import ParameterError

pytestmark = pytest.mark.filterwarnings("ignore::numpyro_diffusion.errors.DiagnosticWarning")

LEVELS = np.array([1.0, 0.6, 0.3, 0.1, 0.0])


def a_plan():
    return Plan(
        LEVELS, np.array([1.0, 0.9, 0.7, 0.5, 0.4]), np.stack([k * np.eye(2) for k in (1.0, 2.0, 3.0, 4.0, 5.0)])
    )


def test_a_plan_read_at_as_many_levels_is_itself():
    for clock in (None, np.arange(5.0), 3 * np.arange(5.0)):
        again = read_plan(a_plan(), SCHEDULE, 5, clock)
        for old, new in zip(a_plan()[:3], again[:3], strict=True):
            np.testing.assert_allclose(np.asarray(new), np.asarray(old), rtol=1e-4, atol=1e-6)


def test_a_clock_puts_levels_where_it_runs_fast():
    # Two units of the clock between the first two levels, one elsewhere: six levels halve that gap alone.
    read = read_plan(a_plan(), SCHEDULE, 6, np.array([0.0, 2.0, 3.0, 4.0, 5.0]))
    np.testing.assert_allclose(read.levels[[0, 2, 3, 4, 5]], LEVELS, rtol=1e-3, atol=1e-6)
    assert LEVELS[1] < read.levels[1] < LEVELS[0]
    assert read.scales is not None
    np.testing.assert_allclose(read.scales[1], 1.5 * np.eye(2), rtol=1e-5)


def test_the_count_of_levels_inverts_their_variance():
    measured = Measured(np.linspace(0.0, 4.0, 9), variance=4.0)
    assert measured.variance_of(9) == 4.0
    for count in (12, 20, 33):
        assert measured.count(1.001 * measured.variance_of(count)) == count
    np.testing.assert_allclose(measured.variance_of(17), 4.0 / 2**FALL)
    # No fewer than the pilot's, none closer than is of use, whatever is asked, and whatever the pilot saw.
    assert measured.count(100.0) == 9
    closest = 1 + int(np.ceil(4.0 / np.sqrt(1 / CLOSEST_ESS - 1)))
    assert measured.count(1e-9) == measured._replace(variance=np.inf).count(1.0) == closest
    assert Measured(np.linspace(0.0, 1e6, 9), 4.0).count(1e-9) == 400
    assert Measured(np.linspace(0.0, 1e6, 9), np.inf).count(0.01) == 400


def test_levels_follow_from_accuracy_where_nothing_else_is_given():
    assert Settings.of_effort(None, None, None, None, 1000) == {
        "accuracy": np.sqrt(DEFAULT_VARIANCE / 1000), "num_steps": 1,
    }  # fmt: skip
    assert Settings.of_effort(None, None, 3, 0.1, 1000) == {"accuracy": 0.1, "num_steps": 3}
    assert Settings.of_effort(None, 0.9, None, None, 1000) == {"level_ess": 0.9}
    assert Settings.of_effort([1.0, 0.0], None, 3, None, 1000) == {"num_steps": 3}


def test_in_the_metric_of_the_pilot_levels_lie_as_reverse_steps_want_them():
    def of(metric, **given):
        return Settings.of_effort(
            **dict.fromkeys(("levels", "level_ess", "num_steps", "accuracy")) | given, num_chains=9, metric=metric
        )

    assert of("pilot") == {"level_ess": POSTERIOR_ESS, "num_steps": 1}
    assert of("pilot", num_steps=3) == {"level_ess": POSTERIOR_ESS, "num_steps": 3}
    for given in ({"accuracy": 0.1}, {"level_ess": 0.9}, {"levels": 9}):
        assert of("pilot", **given) == of("frame", **given)


@pytest.mark.slow
def test_langevin_step_sizes_follow_a_scale_that_shrinks():
    """Epsilon is a squared length: where modes become narrow by a factor, it falls by the factor's square."""
    modes = nd.exact.GaussianMixture([[-1.0, 0.0], [1.0, 0.0]], [1e-3 * np.eye(2)] * 2)
    plan = tuning.plan(jax.random.key(0), modes, MALA(), None, Settings(num_steps=1, accuracy=0.1))
    level = level_at(modes, 0.0, "whitened")
    keys = jax.random.split(jax.random.key(1), 500)
    level = level._replace(step_size=plan.step_sizes[-1])

    def acceptance(key, x):
        state = level.enter(level.frame.position(x), jnp.zeros(2))
        return level.step(MALA(), key, key, state)[1].acceptance_rate

    rates = jax.vmap(acceptance)(keys, modes.sample(keys[0], 500))
    assert 0.3 < rates.mean() < 0.9  # 0.03 where its logarithm followed as that of a length


@pytest.mark.parametrize("accuracy", [0, -0.1, np.nan, "x", [0.1], True])
def test_no_accuracy(accuracy):
    with pytest.raises(ParameterError, match="accuracy must"):
        nd.anneal(jax.random.key(0), P2, accuracy=accuracy, progress_bar=False)
    with pytest.raises(ParameterError, match="accuracy must"):
        nd.verdict(jax.random.key(0), P2, accuracy=accuracy, progress_bar=False)


@pytest.mark.slow
def test_levels_follow_the_accuracy_and_the_chains():
    density = P2 * Q2
    rough, fine = (sample(density, HMC(num_integration_steps=2), num_chains=512, accuracy=a) for a in (0.1, 0.01))
    assert len(rough.levels) < len(fine.levels)
    assert fine.evaluations_per_chain == 3 * len(fine.levels)
    # One pilot for both: with the same key and chains it is the same run.
    assert rough.pilot_evaluations == fine.pilot_evaluations
    few = sample(density, HMC(num_integration_steps=2), num_chains=256, accuracy=0.01)
    assert len(few.levels) >= len(fine.levels)
    assert few.pilot_evaluations == pytest.approx(2 * fine.pilot_evaluations)


@pytest.mark.slow
def test_nothing_to_do_costs_next_to_nothing():
    run = sample(gaussian([0.5, -0.3], np.eye(2)), HMC(num_integration_steps=2), num_chains=512)
    assert run.evaluations_per_chain + run.pilot_evaluations < 25
    assert abs(run.log_evidence) < 1e-3
    assert run.verdict.verdict == "good"


@pytest.mark.slow
def test_the_accuracy_is_kept():
    """Over runs the log evidence scatters as was asked, within a third (40 runs: 11 % standard error)."""
    density, runs = P2 * Q2, range(40)
    for accuracy in (0.1, 0.03):
        found = [sample(density, None, seed, num_chains=256, accuracy=accuracy) for seed in runs]
        scatter = np.std([r.log_evidence for r in found], ddof=1)
        assert scatter < 1.5 * accuracy
        predicted = np.mean([r.verdict.log_evidence_error for r in found])
        assert 0.5 < scatter / predicted < 1.6


@pytest.mark.slow
def test_a_wall_that_no_chain_gets_through_is_told():
    def model(box):
        x = numpyro.sample("x", nd.DiffusionPrior(box))
        numpyro.factor("wall", jnp.where(jnp.linalg.norm(x - jnp.array([3.0, 3.0])) < 0.05, 0.0, -jnp.inf))

    mcmc = nd.AnnealedMCMC(model, num_chains=50, progress_bar=False)
    mcmc.run(jax.random.key(0), nd.exact.UniformBox([-1.0, -1.0], [1.0, 1.0]))
    assert mcmc.log_evidence == -np.inf and "no chain kept a positive weight" in " ".join(findings(mcmc.annealed))
