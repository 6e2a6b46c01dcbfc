"""The noise of a training batch: levels that cover the range evenly, and no key used for two things."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from densities import network

import numpyro_diffusion as nd
from numpyro_diffusion.train import losses
from numpyro_diffusion.train.data import Points
from numpyro_diffusion.train.optimise import settled, with_defaults

KEY, Y = jax.random.key(0), np.random.default_rng(0).normal(size=(64, 2))
DENSITIES = {kind: network(kind) for kind in ("l2", "score")}


@pytest.fixture
def drawn(monkeypatch):
    """What `losses` draws, as (key, values)."""
    calls = []

    def recorded(draw):
        def call(key, *args, **kwargs):
            calls.append((np.asarray(jax.random.key_data(key)).tolist(), draw(key, *args, **kwargs)))
            return calls[-1][1]

        return call

    for name in ("permutation", "uniform", "normal"):
        monkeypatch.setattr(jax.random, name, recorded(getattr(jax.random, name)))
    return calls


@pytest.mark.parametrize("kind", [pytest.param("l2", marks=pytest.mark.slow), "score"])
def test_every_draw_has_a_key_of_its_own(drawn, kind):
    value = losses.loss(DENSITIES[kind], KEY, jnp.asarray(Y, float), None, nd.TrainingConfig(time_score_weight=1.0))
    assert np.isfinite(value) and len(drawn) == 3
    keys = [key for key, _ in drawn]
    assert len({tuple(key) for key in keys}) == 3 and np.asarray(jax.random.key_data(KEY)).tolist() not in keys


def test_levels_cover_the_range_in_any_order(drawn):
    losses.loss(DENSITIES["score"], KEY, jnp.asarray(Y, float), None, nd.TrainingConfig(time_score_weight=1.0))
    (_, order), (_, place), _ = drawn
    share = np.sort((np.asarray(order) + np.asarray(place)) / len(Y))
    np.testing.assert_array_equal(np.floor(share * len(Y)), np.arange(len(Y)))


def smoothed(y, log_r, known):
    """Log density of equally weighted points `known`, each with noise r."""
    squares = jnp.sum((y - known) ** 2, -1)
    return jax.nn.logsumexp(-0.5 * squares * jnp.exp(-2 * log_r)) - y.size * log_r


@pytest.mark.parametrize("condition", [None, [1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
def test_off_the_data_targets_are_scores_of_the_smoothed_data(condition):
    with jax.enable_x64(True):
        known, classes = jnp.asarray(Y), jnp.eye(2)[np.arange(64) % 2]
        points, log_r = known[:8] + jnp.linspace(-3, 3, 8)[:, None], jnp.log(jnp.linspace(0.2, 3, 8))
        given = None if condition is None else jnp.tile(jnp.asarray(condition), (8, 1))
        noisy = losses.Noised(points, log_r, 0 * points)
        found = losses.posterior_targets(noisy, given, Points(known, None if condition is None else classes))
        alike = known[::2] if condition and condition[-1] else known
        gradient, time_score = jax.vmap(jax.grad(lambda y, q: smoothed(y, q, alike), (0, 1)))(points, log_r)
        np.testing.assert_allclose(found.noise, -jnp.exp(log_r)[:, None] * gradient, atol=1e-8)
        np.testing.assert_allclose(found.time_score, time_score, atol=1e-8)
        np.testing.assert_allclose(found.excess, np.maximum(np.sum(found.noise**2, 1) / 2 - 1, 0), atol=1e-8)


@pytest.mark.slow
def test_the_share_off_the_data_is_what_is_asked():
    density, y = DENSITIES["l2"], jnp.asarray(Y, float)
    config = lambda share: nd.TrainingConfig(outlier_share=share, time_score_weight=1.0)
    value = lambda share: losses.loss(density, KEY, y, None, config(share), Points(y))
    plain = losses.loss(density, KEY, y, None, nd.TrainingConfig(time_score_weight=1.0))
    np.testing.assert_allclose(value(0.0), plain, rtol=1e-6)
    assert np.isfinite(value(0.25)) and abs(value(0.25) - plain) > 1e-3


def test_points_off_the_data_are_measured_by_those_that_share_their_condition():
    """By all, and by nothing near the data, where too few do; conditions themselves stay."""
    shared, rare = jnp.eye(2)
    y = jax.random.normal(KEY, (losses.LEAST_ALIKE + 8, 2))
    reference = Points(y, jnp.stack([shared] * losses.LEAST_ALIKE + [rare] * 8))
    condition = jnp.tile(jnp.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0], [0.5, 0.5, 1.0], [0.0, 0.0, 0.0]]), (2, 1))
    noisy = losses.Noised(3 * y[:8], jnp.log(jnp.linspace(0.2, 3, 8)), 0 * y[:8])
    found = losses.outlying_targets(noisy, condition, reference, reference)
    own = losses.posterior_targets(noisy, condition, reference)
    everyones = losses.posterior_targets(noisy, None, reference)
    for i in range(8):
        is_rare = i % 4 in (1, 2)
        expected = everyones if is_rare else own
        for part in ("noise", "time_score", "excess"):
            np.testing.assert_allclose(getattr(found, part)[i], getattr(expected, part)[i], rtol=1e-5)
        share = 1 - 2 / max(jnp.sum(found.noise[i] ** 2), 2) if is_rare else 1
        np.testing.assert_allclose(found.weight[i], share**2, rtol=1e-4, atol=1e-6)


def test_points_off_the_data_keep_their_condition(monkeypatch):
    seen, mismatch = [], losses.mismatch
    monkeypatch.setattr(losses, "mismatch", lambda *args: seen.append(args[2]) or mismatch(*args))
    condition = jnp.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0], [0.5, 0.5, 1.0], [0.0, 0.0, 0.0]])
    config = nd.TrainingConfig(outlier_share=0.5, time_score_weight=1.0, contrastive_weight=0.0)
    reference = Points(jnp.zeros((2, 2)), jnp.eye(2))
    value = losses.loss(network("l2", condition_size=2), KEY, jnp.asarray(Y[:4], float), condition, config, reference)
    np.testing.assert_array_equal(seen[0], condition)
    assert np.isfinite(value)


class Shifted:
    """Two Gaussians of one dimension, -1 and 1 by condition, and their mean given none."""

    is_calibrated = True

    def log_prob_at(self, y, r, condition):
        number, kept = condition
        of = lambda mean: -0.5 * jnp.sum((y - mean) ** 2) / r**2
        mixed = jax.nn.logsumexp(jnp.stack([of(-1.0), of(1.0)])) - jnp.log(2.0)
        return jnp.where(kept > 0, of(2 * number - 1), mixed)


@pytest.mark.parametrize("tilt", [-0.3, 0.3])
def test_conditions_are_told_apart_best_by_true_ratios(tilt):
    """Also where a condition is dropped: log densities that are tilted by a multiple of their difference lose."""
    number_key, drop_key, noise_key = jax.random.split(KEY, 3)
    number = jax.random.bernoulli(number_key, 0.5, (20_000,)).astype(float)
    kept = jax.random.bernoulli(drop_key, 0.7, number.shape).astype(float)
    eps = jax.random.normal(noise_key, (20_000, 1))
    condition = jnp.stack([number * kept, kept], axis=-1)
    noisy = losses.Noised((2 * number - 1)[:, None] + 1.5 * eps, jnp.full(20_000, jnp.log(1.5)), eps)

    class Tilted(Shifted):
        def log_prob_at(self, y, r, condition):
            return super().log_prob_at(y, r, condition) + tilt * condition[1] * (2 * condition[0] - 1) * y[0]

    own = lambda p: jax.vmap(lambda y, log_r, c: p.log_prob_at(y, jnp.exp(log_r), c))(*noisy[:2], condition)
    exact, tilted = (losses.contrastive(p, KEY, noisy, condition, own(p)) for p in (Shifted(), Tilted()))
    assert 0.4 < exact < jnp.log(2.0) and tilted > exact + 2e-3


@pytest.mark.slow
def test_conditions_are_told_apart_in_the_loss_of_calibrated_energies():
    density = network("l2", condition_size=2)
    y, condition = jnp.asarray(Y, float), jnp.append(jnp.eye(2)[np.arange(64) % 2], jnp.ones((64, 1)), axis=1)
    config = lambda weight: nd.TrainingConfig(contrastive_weight=weight, time_score_weight=1.0)
    value = lambda weight, c=condition: losses.loss(density, KEY, y, c, config(weight))
    noisy = losses.noised(density, KEY, y)
    own = jax.vmap(lambda y, log_r, c: density.log_prob_at(y, jnp.exp(log_r), c))(*noisy[:2], condition)
    told = losses.contrastive(density, jax.random.fold_in(KEY, 2), noisy, condition, own)
    np.testing.assert_allclose(value(2.0), value(0.0) + 2 * told, rtol=1e-5)
    np.testing.assert_allclose(value(2.0, c=None), value(0.0, c=None), rtol=1e-6)


def test_what_settings_leave_open_follows_from_the_data():
    of = lambda config, images, energy, calibrated=True: settled(
        config, 768, images=images, energy=energy, calibrated=energy and calibrated
    )
    found = [of(nd.TrainingConfig(), images, energy) for images in (False, True) for energy in (False, True)]
    assert {c.outlier_share for c in found} == {0}
    assert [c.contrastive_weight for c in found] == [0, 0, 0, 8 / 768]
    assert {c.time_score_weight for c in found} == {2 / 768}
    small = lambda size: settled(nd.TrainingConfig(), size, images=False, energy=True, calibrated=True)
    assert [small(size).time_score_weight for size in (1, 2, 8)] == [1, 1, 0.25]
    assert [c.weighting for c in found] == ["score", "denoiser", "denoiser", "denoiser"]
    assert of(nd.TrainingConfig(), False, True, calibrated=False).weighting == "score"
    mine = of(nd.TrainingConfig(outlier_share=0.5, weighting="score", time_score_weight=0.0), True, True)
    assert (mine.outlier_share, mine.weighting, mine.time_score_weight) == (0.5, "score", 0.0)
    assert (
        with_defaults(None, images=True).batch_size == 32 and with_defaults(None, images=False) == nd.TrainingConfig()
    )
    with pytest.raises(nd.errors.ParameterError, match="contrastive_weight"):
        settled(nd.TrainingConfig(contrastive_weight=1.0), 768, images=True, energy=True, calibrated=False)
    with pytest.raises(nd.errors.ParameterError, match="outlier_share"):
        nd.TrainingConfig(outlier_share=1.0)
