"""Findings speak up where they should and only there; runs and bounds survive the way through ArviZ."""

import dataclasses
import warnings

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from numpyro_diffusion.annealing.anneal import anneal
from numpyro_diffusion.annealing.kernels import HMC, MALA
from numpyro_diffusion.annealing.reverse import Reverse
from numpyro_diffusion.density.exact import GaussianMixture, UniformBox
from numpyro_diffusion.density.function import as_density
from numpyro_diffusion.diagnose import datatree
from numpyro_diffusion.diagnose import findings as diagnostics
from numpyro_diffusion.diagnose.result import Bound
from numpyro_diffusion.diagnose.summary import summary
from numpyro_diffusion.diagnose.verdict import Verdict
from numpyro_diffusion.errors import DiagnosticWarning

CHAINS, LEVELS, STEPS = 64, 16, 2
ANGLES = np.linspace(0, 2 * np.pi, 9)[:-1]


def gaussian(mean, variance, name):
    return GaussianMixture([mean], [np.diag(variance)], name=name)


RING = GaussianMixture(np.c_[np.cos(ANGLES), np.sin(ANGLES)], np.tile(0.03 * np.eye(2), (8, 1, 1)), name="ring")
BAR = gaussian([0.0, 0.0], [0.02, 1.0], "bar")
FAR = gaussian([9.0, 0.0], [0.05, 0.05], "far")


@pytest.fixture(scope="module")
def run():
    """The good product, with history; no finding may be made of it."""
    kernel = HMC(step_size=0.6)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DiagnosticWarning)
        return anneal(
            jax.random.key(0), RING * BAR, kernel, num_chains=CHAINS, levels=LEVELS, num_steps=STEPS, keep_history=True,
            progress_bar=False,
        )  # fmt: skip


def altered(run, *, kernel=None, density=None, **stats):
    """The run with some of its statistics overwritten."""
    changed = {k: np.full_like(run.stats[k], v) if np.isscalar(v) else np.asarray(v) for k, v in stats.items()}
    new = dataclasses.replace(run, stats=run.stats | changed)
    return dataclasses.replace(new, kernel=kernel or run.kernel, density=density or run.density)


def only(run):
    found = diagnostics.findings(run)
    assert len(found) == 1, found
    return found[0]


def test_levels_that_end_above_the_data(run):
    early = lambda t: dataclasses.replace(run, levels=np.append(run.levels[:-1], t))
    assert "the levels end at t = 0.2: samples and log evidence are of the density at that noise level" in only(
        early(0.2)
    )
    assert diagnostics.findings(early(0.002)) == []


def test_a_good_product_has_no_findings(run):
    assert diagnostics.findings(run) == []


@pytest.mark.parametrize("stats", [{"ess": 0.04}, {"conditional_ess": 0.1}, {"conditional_ess": np.nan}])
def test_collapsed_weights(run, stats):
    found = only(altered(run, **stats))
    assert f"collapse at {LEVELS} of {LEVELS} levels" in found
    assert f"more levels than {LEVELS}," in found
    placed = only(dataclasses.replace(altered(run, **stats), levels_given=False))
    assert "level_ess closer to 1" in placed and "more levels than" not in placed


def test_one_collapsed_level_is_enough_and_is_located(run):
    ess = run.stats["ess"].copy()
    ess[5] = 0.01
    found = only(altered(run, ess=ess))
    assert f"1 of {LEVELS} levels, first at t = {run.levels[5]:.3g}" in found


def test_few_founders(run):
    found = only(dataclasses.replace(run, log_evidence_error=0.8))
    assert "few founding chains" in found and "0.80" in found
    assert diagnostics.findings(dataclasses.replace(run, log_evidence_error=0.45)) == []


def test_a_pilot_that_expected_failure_is_heard_where_nothing_else_is(run):
    expected = [
        dataclasses.replace(run, verdict=Verdict(word, 0.8, 0.4, 9.0, CHAINS, 50.0)) for word in ("bad", "good")
    ]
    assert "expected this run to fail (chance 80%)" in only(expected[0]) and diagnostics.findings(expected[1]) == []
    assert "few founding chains" in only(dataclasses.replace(expected[0], log_evidence_error=0.8))


@pytest.mark.parametrize(
    ("step_size", "rate", "word"),
    [
        (None, 0.3, "target 0.70"),
        (None, 0.95, "target 0.70"),
        (0.5, 0.2, "below 0.3"),
        (0.5, 0.995, "above 0.98"),
        (None, 0.55, None),
        (0.5, 0.4, None),
        (0.5, 0.95, None),
        (None, np.where(np.arange(LEVELS) < LEVELS - 1, 0.7, 0.0), "0.000 at the last level"),
    ],
)
def test_acceptance(run, step_size, rate, word):
    bad = altered(run, kernel=HMC(step_size=step_size), acceptance_rate=rate)
    if word is None:
        assert diagnostics.findings(bad) == []
    else:
        assert word in only(bad)


@pytest.mark.parametrize(("share", "is_found"), [(0.2, False), (0.3, True)])
def test_a_tuned_kernel_may_miss_its_target_at_a_quarter_of_the_levels(run, share, is_found):
    rate = np.where(np.arange(LEVELS) < share * LEVELS, 0.3, 0.7)
    assert bool(diagnostics.findings(altered(run, kernel=HMC(), acceptance_rate=rate))) == is_found


def test_divergences_count_at_noisy_levels_only(run):
    noisy = np.asarray(run.density.schedule.noise_to_signal(run.levels)) > 0.01
    count = 0.1 * CHAINS * STEPS
    assert "10% of the proposals" in only(altered(run, divergences=np.where(noisy, count, 0)))
    # Hard walls: proposals across them are hopeless where the noise is small, and rightly rejected.
    assert diagnostics.findings(altered(run, divergences=np.where(noisy, 0, 5 * count))) == []


def test_what_is_not_finite(run):
    samples = run.samples.at[3, 1].set(jnp.nan)
    assert f"1 of {CHAINS} samples are not finite" in only(dataclasses.replace(run, samples=samples))
    dead = dataclasses.replace(run, log_evidence=-np.inf, log_evidence_error=np.nan)
    assert "log evidence is -inf" in only(dead)
    log_weights = run.log_weights.at[: CHAINS // 2].set(-jnp.inf)
    assert "50% of the chains have weight zero" in only(dataclasses.replace(run, log_weights=log_weights))


@pytest.mark.parametrize(
    "density",
    [
        BAR * FAR,
        3.0 * (BAR * FAR),
        BAR * (0.5 * FAR + 0.5 * FAR.with_schedule(FAR.schedule)),
        UniformBox([-1, -1], [1, 1]) * UniformBox([8.0, -1.0], [9.0, 1.0], name="far"),
    ],
    ids=repr,
)
def test_factors_that_do_not_overlap(run, density):
    found = only(dataclasses.replace(run, density=density))
    assert "do not overlap" in found and "far" in found and "mixture" in found


@pytest.mark.parametrize(
    "density",
    [
        BAR,
        BAR / FAR**0.01,
        BAR * as_density(lambda x, t: -jnp.sum((x - 9) ** 2), (2,), name="factor"),
        0.5 * BAR + 0.5 * FAR,
        RING * (0.5 * BAR + 0.5 * FAR),
        RING**0.1 * BAR**0.1,
    ],
    ids=repr,
)
def test_what_is_no_product_of_disjoint_densities(run, density):
    """One numerator, a factor without moments, mixtures of which one part explains the samples, tempering."""
    # The evidence is that of the run's own density, which is no matter here.
    assert diagnostics.findings(dataclasses.replace(run, density=density, log_evidence=0.0)) == []


def test_uncalibrated_factors_are_judged_by_their_moments(run):
    def unknown(mean, name):
        return as_density(lambda x, t: -jnp.sum(x**2), (2,), mean=mean, covariance=0.1 * jnp.eye(2), name=name)

    assert "`away`" in only(dataclasses.replace(run, density=unknown([9.0, 0.0], "away") * RING))
    assert diagnostics.findings(dataclasses.replace(run, density=unknown([0.0, 0.0], "here") * RING)) == []


def test_a_disjoint_product_warns_at_the_line_of_the_call():
    with pytest.warns(DiagnosticWarning, match="do not overlap") as record:
        anneal(
            jax.random.key(1), BAR * FAR, HMC(step_size=0.6), num_chains=CHAINS, levels=LEVELS, num_steps=STEPS,
            keep_history=True, progress_bar=False,
        )  # fmt: skip
    assert {w.filename for w in record} == {__file__}


def test_an_uncalibrated_mixture_is_found_but_warned_of_once(run):
    loose = as_density(lambda x, t: -jnp.sum(x**2), (2,), name="loose")
    with pytest.warns(DiagnosticWarning, match="loose: not calibrated"):
        mixture = 0.5 * loose + 0.5 * BAR
    bad = dataclasses.replace(run, density=mixture)
    assert "loose: not calibrated" in only(bad)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bad.warn()
    assert "unknown constant of loose" in summary(bad)


def test_summary(run):
    lines = dict(line.split(maxsplit=1) for line in summary(run).replace("log evidence", "evidence").split("\n"))
    assert lines["density"] == "ring * bar"
    assert lines["kernel"].startswith("HMC(step_size=0.6, num_integration_steps=3")
    assert lines["chains"] == str(CHAINS)
    assert lines["levels"].startswith(f"{LEVELS}, noise-to-signal ratio 100 to 0")
    assert lines["evidence"] == f"{run.log_evidence:.3f} +- {run.log_evidence_error:.3f} nats"
    assert lines["findings"] == "none"


def test_summary_lists_findings(run):
    text = summary(altered(run, ess=0.01))
    assert "findings      1\n  - weights collapse" in text


def test_datatree_of_a_run(run):
    tree = run.to_datatree()
    stats, samples = tree["sample_stats"], np.asarray(run.samples)
    particle = np.asarray(stats["particle"])
    assert particle.shape == (4, CHAINS // 4) and sorted(particle.ravel()) == list(range(CHAINS))
    np.testing.assert_array_equal(tree["posterior"]["x"], samples[particle])
    lp = np.asarray(run.density.log_prob(run.samples))
    np.testing.assert_allclose(stats["lp"], lp[particle], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(stats["weight"].sum(), 1.0)
    annealing = tree["annealing"]
    assert dict(annealing.sizes) == {"noise_level": LEVELS, "particle": CHAINS}
    assert set(run.stats) <= set(annealing.data_vars)
    np.testing.assert_allclose(annealing["t"], run.levels)
    np.testing.assert_allclose(
        annealing["noise_to_signal"], run.density.schedule.noise_to_signal(run.levels), rtol=1e-5
    )
    mean = annealing["chain_acceptance_rate"].mean("particle")
    np.testing.assert_allclose(mean, annealing["acceptance_rate"], rtol=1e-5)
    assert tree.attrs["formula"] == "ring * bar" and tree.attrs["inference_library"] == "numpyro_diffusion"
    assert all(isinstance(value, str | int | float) for value in tree.attrs.values())


def test_arviz_summarises_the_posterior(run):
    table = az.summary(run.to_datatree(), kind="stats", round_to="none")
    np.testing.assert_allclose(table["mean"].astype(float), np.mean(run.samples, axis=0), atol=1e-5)


def test_weights_are_normalised_and_a_dead_chain_weighs_nothing(run):
    log_weights = jnp.zeros(CHAINS).at[0].set(-jnp.inf).at[1].set(jnp.log(2.0))
    tree = dataclasses.replace(run, log_weights=log_weights).to_datatree()
    stats = tree["sample_stats"]
    weight = np.r_[0, 2, np.ones(CHAINS - 2)] / CHAINS
    np.testing.assert_allclose(stats["weight"], weight[np.asarray(stats["particle"])], rtol=1e-6)
    assert "weights" in tree["posterior"].attrs and np.isnan(az.rhat(tree)["x"]).all()


def test_reverse_diffusion_has_no_annealing_group():
    run = anneal(jax.random.key(0), BAR, Reverse(), num_chains=CHAINS, levels=8, progress_bar=False)
    assert set(run.to_datatree().children) == {"posterior", "sample_stats", "estimates"}
    assert diagnostics.findings(run) == []
    assert "undefined" in summary(run)


BOUND = Bound("bdmc", -1.2, 0.02, -1.1, 0.01, {"forward": np.zeros(5), "reverse": np.ones(5)}, np.linspace(1, 0, 7))


def test_datatree_of_a_bound():
    group = datatree.to_datatree(BOUND)["bounds"]
    np.testing.assert_allclose(group["gap"], 0.1)
    assert dict(group.sizes) == {"chain": 5, "noise_level": 7}
    np.testing.assert_array_equal(group["log_weight_reverse"], np.ones(5))
    assert group.attrs["kind"] == "bdmc"
    points = dataclasses.replace(BOUND, kind="raise", upper=np.nan, log_weights={"points": np.zeros((3, 4))})
    group = datatree.to_datatree(points)["bounds"]
    assert group["log_weight_points"].dims == ("point", "repeat") and np.isnan(group["gap"])


def test_summary_of_a_bound():
    text = summary(BOUND)
    assert "BDMC, 7 levels" in text and "-1.200 +- 0.020 nats" in text and "gap           0.100" in text


@pytest.mark.parametrize("which", ["run", "bound"])
def test_netcdf_round_trip(run, which, tmp_path):
    pytest.importorskip("h5netcdf")
    tree = datatree.to_datatree(run if which == "run" else BOUND)
    tree.to_netcdf(tmp_path / "tree.nc", engine="h5netcdf")
    with xr.open_datatree(tmp_path / "tree.nc", engine="h5netcdf") as back:
        xr.testing.assert_equal(back.load(), tree)
        assert back.attrs == tree.attrs


def test_repr_of_kernels():
    assert repr(MALA(step_size=np.full(4, 0.1))) == "MALA(step_size=array[4])"
    assert repr(HMC()) == "HMC(step_size=tuned, num_integration_steps=3)"
