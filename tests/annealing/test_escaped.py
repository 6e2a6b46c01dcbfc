"""Chains that leave: counted at every level, told, and stopped where nothing else would stop them."""

import dataclasses

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from densities import gaussian, mixture, network
from quick import slow

import numpyro_diffusion as nd
from numpyro_diffusion.annealing.escaped import FAR, escaped
from numpyro_diffusion.diagnose.findings import findings
from numpyro_diffusion.diagnose.summary import summary
from numpyro_diffusion.errors import DiagnosticWarning, ParameterError

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def score():
    return nd.load_pretrained("ring_score")


def anneal(density, kernel, **settings):
    return nd.anneal(KEY, density, kernel, **{"num_chains": 100, "levels": 30, "progress_bar": False} | settings)


def test_which_chains_have_left():
    p, q = gaussian(name="p"), gaussian(mean=(100.0, 0.0), name="q")
    far = 1.01 * FAR * np.sqrt(2)
    x = jnp.array([[0.0, 0.0], [0.99 * far / 1.01, 0.0], [far, 0.0], [np.nan, 0.0], [100.0, 5.0], [1e30, -1e30]])
    np.testing.assert_array_equal(escaped(p, 0.0, x), [False, False, True, True, True, True])
    # Of a composition every factor must be far: near one of them is not lost.
    np.testing.assert_array_equal(escaped(p * q, 0.0, x), [False, False, False, True, False, True])
    # So must the whole: a power below one is wider than its factor.
    assert not escaped(p**0.001, 0.0, x[2:3])[0]
    unknown = nd.as_density(lambda x, t: -jnp.sum(x**2), (2,))
    np.testing.assert_array_equal(escaped(unknown, 0.0, x), [False, False, False, True, False, False])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("power", "kernel"),
    [
        slow((1.0, nd.ULA(0.3))),
        (1.5, nd.UHMC(1.5)),
        slow((1.0, nd.UHMC(1.5))),
        slow((1.5, nd.ULA(0.3))),
    ],
    ids=repr,
)
def test_a_score_whose_chains_explode_stops_with_what_there_is(score, power, kernel):
    with pytest.warns(DiagnosticWarning, match=r"left the scale of every factor.*stopped after level .*t = 0\."):
        run = anneal(score**power, kernel)
    assert not run.is_complete and 1 < len(run.levels) < 30 and run.samples.shape == (100, 2)
    assert run.stats["escaped"][-1] > 50 >= run.stats["escaped"][-2]
    (found,) = findings(run)
    assert f"step_size smaller than {float(kernel.step_size):.3g}" in found
    assert "incomplete" in repr(run) and "incomplete" in summary(run)


@pytest.mark.slow
def test_a_stopped_run_is_read_back_as_it_was(score, tmp_path):
    def run():
        with pytest.warns(DiagnosticWarning, match="left the scale"):
            return anneal(score, nd.ULA(0.3), checkpoint_path=tmp_path / "run")

    first, again = run(), run()
    assert not again.is_complete and len(first.levels) == len(again.levels)
    np.testing.assert_array_equal(first.samples, again.samples)


@pytest.mark.slow
def test_a_score_has_an_acceptance_where_the_kernel_has_a_ratio(score, capsys):
    run = anneal(score, nd.ULA(0.01), progress_bar=True)
    assert np.all(run.stats["escaped"] == 0) and run.is_complete
    assert np.all(run.stats["acceptance_rate"] > 0.5) and np.isfinite(run.ess)
    shown = capsys.readouterr().err
    assert "anneal" in shown and "acceptance=" in shown and "ess=" in shown


def unknown_ratio(step_size=0.01):
    """A kernel of which runs know no Metropolis ratio."""
    return nd.BlackJAX(blackjax.mala, step_size, is_adjusted=False)


@pytest.mark.slow
def test_a_score_has_no_acceptance_otherwise(score, capsys):
    run = anneal(score, unknown_ratio(), progress_bar=True, levels=10)
    assert np.all(run.stats["escaped"] == 0) and run.is_complete
    assert np.all(np.isnan(run.stats["acceptance_rate"])) and np.isnan(run.ess)
    assert "acceptance    none: there are no Metropolis ratios" in summary(run)
    shown = capsys.readouterr().err
    assert "anneal" in shown and "acceptance" not in shown and "ess=" not in shown


@pytest.mark.slow
@pytest.mark.parametrize(
    ("metric", "levels"),
    [
        ("frame", [1.0, 0.4, 0.1, 0.0]),
        ("pilot", 7),
        *(slow(case) for case in (("frame", 7), ("frame", None), ("pilot", [1.0, 0.4, 0.1, 0.0]), ("pilot", None))),
    ],
    ids=str,
)
def test_levels_of_a_score_without_weights_are_those_asked_for(metric, levels):
    density, count = network("score"), {None: 100, 7: 7}.get(levels if not isinstance(levels, list) else 0, 4)
    run = anneal(density, unknown_ratio(), levels=levels, metric=metric, num_chains=8)
    assert len(run.levels) == count and run.levels_given == (levels is not None)
    steps = np.linspace(0.02, 0.01, count)
    if levels is not None:
        np.testing.assert_allclose(
            anneal(density, unknown_ratio(steps), levels=levels, metric=metric, num_chains=8).stats["step_size"], steps
        )
    with pytest.raises(ParameterError, match=r"only a score.*step_size"):
        anneal(density, unknown_ratio(None), levels=levels, metric=metric)


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["frame", "pilot"])
def test_levels_of_a_score_are_placed_and_steps_tuned(metric):
    run = anneal(network("score"), nd.MALA(), levels=None, metric=metric, num_chains=64)
    assert 5 < len(run.levels) < 100 and not run.levels_given
    assert len(np.unique(run.stats["step_size"])) > 3 and 0.3 < run.stats["acceptance_rate"].mean() < 0.9


@pytest.mark.slow
def test_step_sizes_by_level_reach_the_pilot():
    """Moves learnt at given steps, one per level."""
    steps = np.linspace(0.6, 0.4, 5)
    run = anneal(mixture(), nd.HMC(steps), levels=5, metric="pilot")
    np.testing.assert_allclose(run.stats["step_size"], steps, rtol=1e-5)
    assert run.scale.shape == (2, 2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::numpyro_diffusion.errors.DiagnosticWarning")
def test_adjusted_kernels_go_on_and_are_told_what_it_may_be():
    """A mean and covariance that have nothing to do with the density: slow, and right all the same."""
    wrong = nd.as_density(
        lambda x, t: -0.5 * jnp.sum((x - 50) ** 2) - jnp.log(2 * jnp.pi), (2,), mean=np.zeros(2), covariance=np.eye(2)
    )
    run = anneal(wrong, nd.HMC(0.5), levels=5, num_steps=300)
    assert run.is_complete and abs(np.mean(run.samples) - 50) < 1
    assert any("mean and covariance given for one may be wrong" in text for text in findings(run))


def test_a_few_that_left_are_counted():
    run = anneal(mixture(), nd.HMC(0.5), levels=4)
    stats = run.stats | {"escaped": np.array([0, 0, 3, 2])}
    assert findings(dataclasses.replace(run, stats=stats)) == []
    loose = dataclasses.replace(run, stats=stats, kernel=nd.ULA(0.1))
    assert any(text.startswith("3 of 100 chains left") and "first at level 3" in text for text in findings(loose))
