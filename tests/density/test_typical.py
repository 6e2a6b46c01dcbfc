"""What data look like to an energy, and samples that look otherwise: false wells, and evidence that is not 1."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from densities import COVARIANCE, MEAN, NETWORK, gaussian, joint_density, network

import numpyro_diffusion as nd
from numpyro_diffusion.density import typical
from numpyro_diffusion.density.typical import typical_log_probs
from numpyro_diffusion.diagnose import findings as diagnostics
from numpyro_diffusion.diagnose.findings.untypical import off_evidence, untypical
from numpyro_diffusion.disk import checkpoint
from numpyro_diffusion.errors import CheckpointError

DATA = np.random.default_rng(0).multivariate_normal(MEAN, COVARIANCE, 3000).astype(np.float32)
TRAINING = nd.TrainingConfig(num_steps=20, batch_size=64)


def energy(form="inner_product", calibrated=False, **settings):
    """An untrained energy of random weights that knows what the data look like to it."""
    density = network(form, calibrated, **settings)
    condition = np.eye(2)[np.arange(len(DATA)) % 2] if density.no_condition is not None else None
    return density._replace(typical=typical_log_probs(density, DATA, condition, jax.random.key(1)))


def noised(density, t, count=400):
    alpha, sigma = float(density.schedule.alpha(t)), max(float(density.schedule.sigma(t)), 0.01)
    noise = np.random.default_rng(2).standard_normal((count, 2))
    return (alpha * DATA[:count] + sigma * noise).astype(np.float32)


def well(density, t=0.0):
    """Points near the greatest log density of a wide grid: an unbounded energy falls without end."""
    grid = np.stack(np.meshgrid(*[np.linspace(-60, 60, 81)] * 2), -1).reshape(-1, 2).astype(np.float32)
    best = grid[np.argmax(density.log_prob(grid, t))]
    return best + 0.01 * np.random.default_rng(3).standard_normal((100, 2)).astype(np.float32)


def fit(**settings):
    settings = {"network": nd.NetworkConfig(**NETWORK), "training": TRAINING, "progress_bar": False} | settings
    return nd.fit(jax.random.key(0), DATA, **settings)


@pytest.mark.slow
def test_fit_records_what_data_look_like():
    density = fit()
    log_probs = jax.jit(jax.vmap(density.log_prob_at, (0, None)))
    assert density.typical.shape == (1, 6, 16)
    log_r, *quantiles = np.asarray(density.typical[0], dtype=float)
    np.testing.assert_allclose(np.exp(log_r[[0, -1]]), density.sigmas, rtol=1e-4)
    assert np.all(np.diff(log_r) > 0) and np.all(np.diff(quantiles, axis=0) >= 0)
    # At each level what points noised anew have: 4,096 and 3,000 of them, within five standard errors of a median.
    for level in (0, 8, 15):
        r = np.exp(log_r[level])
        y = DATA - np.asarray(density.mean) + r * np.random.default_rng(level).standard_normal(DATA.shape)
        found = log_probs(jnp.asarray(y, dtype=jnp.float32), r)
        share = np.mean(np.asarray(found) < quantiles[2][level])
        assert abs(share - 0.5) < 5 * 0.5 * np.sqrt(1 / 3000 + 1 / 4096)


@pytest.mark.slow
def test_fit_records_nothing_for_scores_and_a_table_for_each_kind_of_condition():
    assert fit(model="score").typical is None
    classes = np.eye(2)[np.arange(len(DATA)) % 2]
    assert fit(conditions=classes).typical.shape == (2, 6, 16)


def test_equal_shapes_compile_once():
    energy()
    before = typical._log_probs._cache_size()
    energy(seed=5)
    assert typical._log_probs._cache_size() == before


@pytest.mark.quick_cases(2)
@pytest.mark.quick_cases(3)
@pytest.mark.parametrize("t", [0.0, 0.05, 0.5, 0.9])
@pytest.mark.parametrize("schedule", [None, nd.VarianceExploding(sigma_max=20.0)], ids=["VP", "VE"])
def test_data_are_typical_and_a_well_is_not(t, schedule):
    density = energy(schedule=schedule)
    assert untypical(density, noised(density, t), t) == []
    # A measured normaliser moves data and samples alike.
    shifted = density._replace(log_z=density.log_z.at[1].add(300.0))
    assert untypical(shifted, noised(density, t), t) == []
    (finding,) = untypical(density, well(density, t), t)
    assert "likelier" in finding and "false well" in finding and "'l2'" in finding
    (finding,) = untypical(shifted, noised(density, t) + 1000 * np.sign(MEAN, dtype=np.float32), t) or ("",)
    assert "likelier" in finding


def test_a_quarter_of_the_samples_is_too_many():
    density = energy()
    data, deep = noised(density, 0.0), well(density)
    assert untypical(density, np.concatenate([data[:90], deep[:10]]), 0.0) == []
    assert len(untypical(density, np.concatenate([data[:60], deep[:40]]), 0.0)) == 1
    # Chains that left the numbers are for another finding to count.
    assert untypical(density, np.full((10, 2), np.nan), 0.0) == []


def test_unlikely_samples_of_one_energy():
    density = energy("l2", True)
    (finding,) = untypical(density, noised(density, 0.0) + 50, 0.0)
    assert "unlikelier" in finding and "more levels" in finding
    # Another factor may ask for them.
    assert untypical(density * gaussian((50.0, 50.0)), noised(density, 0.0) + 50, 0.0) == []


def test_windows_are_judged_by_what_they_show():
    density = energy()
    product = density.seen(nd.crop(0), (4,)) * density.seen(nd.crop(2), (4,))
    data, deep = noised(density, 0.0, 100), well(density)
    assert untypical(product, np.concatenate([data, data[::-1]], axis=1), 0.0) == []
    (finding,) = untypical(product, np.concatenate([data, deep], axis=1), 0.0)
    assert "likelier" in finding and "false well" in finding


def test_compositions_are_judged_by_their_numerators():
    density, other = energy(), gaussian()
    data, deep = noised(density, 0.0), well(density)
    formulas = (density * other, density**0.5, 3.0 * density, density**2 / other)
    for formula in formulas:
        assert untypical(formula, data, 0.0) == []
        assert len(untypical(formula, deep, 0.0)) == 1
    assert untypical(other / density, deep, 0.0) == []
    assert untypical(other, deep, 0.0) == []


def test_conditions_have_quantiles_of_their_own():
    density = energy("l2", True, condition_size=2)
    assert density.typical.shape == (2, 6, 16)
    given = density.given(jnp.array([1.0, 0.0]))
    points = noised(density, 0.0, 2000)[::2]
    assert untypical(given, points, 0.0) == []
    raised = given._replace(typical=given.typical.at[1, 1:].add(-1e4))
    assert len(untypical(raised, points, 0.0)) == 1


@pytest.mark.slow
def test_the_prior_of_a_model_is_judged():
    density = energy()

    def model(y):
        x = numpyro.sample("x", nd.DiffusionPrior(density))
        numpyro.sample("y", dist.Normal(x.sum(), 1.0), obs=y)

    joint = joint_density(jax.random.key(0), model, (0.5,), {}, view="gaussian", likelihood_power=None)
    assert untypical(joint, noised(density, 0.0), 0.0) == []
    assert len(untypical(joint, well(density), 0.0)) == 1


def test_files_keep_it_and_old_files_load(tmp_path):
    path = tmp_path / "density.safetensors"
    density = energy()
    nd.save(density, path, dtype="float16")
    np.testing.assert_array_equal(nd.load(path).typical, density.typical)
    nd.save(network(), path)
    assert nd.load(path).typical is None
    assert nd.load_pretrained("ring").typical.shape == (1, 6, 16)
    assert nd.load_pretrained("ring_score").typical is None
    assert "log density of noised data" in nd.pretrained_card("ring")


@pytest.mark.parametrize(
    "damage",
    [
        lambda a: a[0],
        lambda a: a[:, :4],
        lambda a: a[..., :0],
        lambda a: np.concatenate([a, a]),
        lambda a: a[..., ::-1],
        lambda a: a[:, [0, 5, 4, 3, 2, 1]],
        lambda a: a.astype(np.int32),
    ],
    ids=["flat", "rows", "empty", "tables", "levels", "quantiles", "integers"],
)
def test_damaged_quantiles_are_refused(tmp_path, damage):
    path = tmp_path / "density.safetensors"
    nd.save(energy(), path)
    arrays, config = checkpoint.read(path)
    checkpoint.write(path, arrays | {"typical": damage(arrays["typical"])}, config)
    with pytest.raises(CheckpointError, match="typical"):
        nd.load(path)


def fake(density, log_evidence, error, **fields):
    return SimpleNamespace(
        density=density, log_evidence=log_evidence, log_evidence_error=error, is_weighted=True, **fields
    )


def test_the_evidence_of_one_normalised_density_is_one():
    density = energy("l2", True)
    mixture = 0.5 * gaussian() + 0.5 * gaussian((1.0, 0.0))
    for normalised in (density, mixture, gaussian()):
        for quiet in ((0.1, 0.05), (0.015, 0.001), (np.nan, 0.1), (3.0, np.nan)):
            assert off_evidence(fake(normalised, *quiet)) == []
        (finding,) = off_evidence(fake(normalised, 0.2, 0.046))
        assert "0.200 +- 0.046" in finding and "calibration_report" in finding
    # Nothing is known of these.
    for other in (2.0 * gaussian(), gaussian() * gaussian(), network("l2", False)):
        assert off_evidence(fake(other, 5.0, 0.1)) == []
    (finding,) = off_evidence(fake(network(condition_size=2).given(jnp.array([1.0, 0.0])), -1.0, 0.1))
    assert "nd.recalibrate(rng_key, density.given(condition))" in finding
    assert off_evidence(fake(network("score"), 0.2, 0.07)) == []
    (finding,) = off_evidence(fake(network("score"), -0.3, 0.05))
    assert "not those of one diffusion (see nd.check_model)" in finding


@pytest.mark.slow
def test_a_run_in_a_false_well_says_so():
    """One chain a point, none of them moved: what a run in the well would end with."""
    density = energy()
    settings = {"num_chains": 100, "levels": [1.0, 0.5, 0.0], "progress_bar": False}
    with pytest.warns(nd.errors.DiagnosticWarning, match="weights collapse"):
        run = nd.anneal(jax.random.key(0), density, nd.ULA(step_size=1e-3), **settings)
    run.samples = jnp.asarray(well(density))
    assert any("false well" in finding for finding in diagnostics.findings(run))
    run.samples = jnp.asarray(noised(density, 0.0, 100))
    assert not any("likelier" in finding for finding in diagnostics.findings(run))
