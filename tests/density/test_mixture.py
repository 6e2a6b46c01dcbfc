"""The mixture base, and energies that stand on it: closed forms, classes, storage, and what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from densities import COVARIANCES, MEANS, NETWORK, log_prob_of, moments_of, untrained

import numpyro_diffusion as nd
from numpyro_diffusion.disk import densities as storage
from numpyro_diffusion.errors import CheckpointError, ParameterError, ShapeError
from numpyro_diffusion.train import optimise

# Two classes of two and one components, and no class.
WEIGHTS = np.array([[0.4, 0.6, 0.0], [0.0, 0.0, 1.0], [0.2, 0.3, 0.5]])
CONDITIONS = {"none": [0.0, 0.0, 0.0], "first": [1.0, 0.0, 1.0], "second": [0.0, 1.0, 1.0], "half": [0.5, 0.5, 1.0]}
SCHEDULE = nd.VarianceExploding(0.01, 20.0)
X = jax.random.normal(jax.random.key(0), (6, 2))
RNG = np.random.default_rng(0)
GREY = np.clip(RNG.normal(0.3, 1.0, (60, 4)), -1, 1) + RNG.uniform(-0.05, 0.05, (60, 4))
LABELS = np.eye(2)[np.arange(60) % 2]
PATCHES = nd.PatchConfig(grid=(2, 2), width=4, embedding_size=4)
SHORT = nd.TrainingConfig(num_steps=20, batch_size=32)


def base():
    return nd.MixtureBase.of(MEANS, COVARIANCES, WEIGHTS)


def exact(condition):
    weights = np.asarray(condition[:-1]) @ WEIGHTS[:-1] + (1 - condition[-1]) * WEIGHTS[-1]
    some = weights > 0
    return nd.exact.GaussianMixture(MEANS[some], COVARIANCES[some], weights[some], schedule=SCHEDULE)


def energy(potential=True, silent=False, schedule=SCHEDULE):
    """An untrained density on a mixture base; silent: its network contributes nothing."""
    config = nd.PatchConfig(grid=(1, 2), width=4, embedding_size=4, condition_size=2)
    if not potential:
        config = nd.NetworkConfig(**NETWORK, condition_size=2)
    density = untrained(
        config, (2,), "potential" if potential else "l2",
        mean=MEANS.mean(0), covariance=np.eye(2), base=base(), schedule=schedule,
    )  # fmt: skip
    noise = np.random.default_rng(1)
    density.state = jax.tree.map(
        lambda a: jnp.zeros_like(a) if silent else a + jnp.asarray(0.3 * noise.normal(size=a.shape), a.dtype),
        density.state,
    )
    return density


@pytest.fixture(scope="module")
def fitted():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optimise, "CHUNK", 10)
        mixture = nd.MixtureBase.fit(GREY, LABELS, num_components=2)
        return nd.fit(
            jax.random.key(0), GREY, conditions=LABELS, network=PATCHES, training=SHORT, base=mixture, name="grey",
            progress_bar=False,
        )  # fmt: skip


@pytest.mark.parametrize("condition", CONDITIONS.values(), ids=CONDITIONS)
def test_log_prob_is_that_of_the_noised_mixture(condition):
    for r in (0.02, 0.3, 3.0):
        ours = jax.vmap(lambda x, r=r: base().log_prob(x, r, jnp.array(condition)))(X)
        expected = exact(condition).log_prob(X, SCHEDULE.time(r))
        np.testing.assert_allclose(ours, expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("condition", CONDITIONS.values(), ids=CONDITIONS)
def test_moments_are_those_of_the_mixture(condition):
    for ours, expected in zip(
        *map(moments_of, (base().moments(jnp.array(condition)), exact(condition).gaussian(0.0))), strict=True
    ):
        np.testing.assert_allclose(ours, expected, atol=1e-3)


@pytest.mark.slow
def test_density_with_a_silent_network_is_the_base():
    for potential in (True, False):
        density = energy(potential, silent=True)
        for given, condition in ((None, "none"), ([1.0, 0.0], "first"), ([0.0, 1.0], "second"), ([0.5, 0.5], "half")):
            ours, expected = density.given(given), exact(CONDITIONS[condition])
            np.testing.assert_allclose(log_prob_of(ours, X, 0.4), log_prob_of(expected, X, 0.4), rtol=1e-3, atol=2e-3)
            for a, b in zip(*map(moments_of, (ours.gaussian(0.4), expected.gaussian(0.4))), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)


def test_the_potential_is_bounded_and_the_base_rules_far_out():
    density, silent = energy(), energy(silent=True)
    far = 1e3 * X
    difference = log_prob_of(density, far, 0.3) - log_prob_of(silent, far, 0.3)
    assert np.all(np.abs(difference) < 100)
    assert np.all(log_prob_of(silent, far, 0.3) < -1e3)


def test_classes_share_the_potential():
    # Where the potential is common, the density without condition is the mixture of the classes.
    density = energy()
    by_class = jnp.stack([log_prob_of(density.given(one), X, 0.3) for one in np.eye(2)])
    expected = jax.nn.logsumexp(by_class + jnp.log(jnp.array([0.5, 0.5]))[:, None], axis=0)
    np.testing.assert_allclose(log_prob_of(density, X, 0.3), expected, rtol=1e-4, atol=1e-4)


def test_classes_have_normalisers_of_their_own():
    density = energy()
    more = jnp.stack([jnp.full(density.log_z.shape[1], 0.25), jnp.full(density.log_z.shape[1], -0.5)])
    known = density._replace(class_log_z=more)
    for given, shift in (([1.0, 0.0], 0.25), ([0.0, 1.0], -0.5)):
        ours, before = log_prob_of(known.given(given), X, 0.3), log_prob_of(density.given(given), X, 0.3)
        np.testing.assert_allclose(ours, before - shift, rtol=1e-5, atol=1e-5)
    # Without a condition the classes keep the shares of the base, whatever the potential does to each.
    by_class = jnp.stack([log_prob_of(known.given(one), X, 0.3) for one in np.eye(2)])
    expected = jax.nn.logsumexp(by_class + jnp.log(jnp.array([0.5, 0.5]))[:, None], axis=0)
    np.testing.assert_allclose(log_prob_of(known, X, 0.3), expected, rtol=1e-4, atol=1e-4)


def test_under_another_schedule_it_is_the_same_density():
    density, t = energy(schedule=nd.VariancePreserving.cosine()), 0.4
    other = density.with_schedule(SCHEDULE)
    alpha, r = float(density.schedule.alpha(t)), float(density.schedule.noise_to_signal(t))
    expected = log_prob_of(other, X / alpha, SCHEDULE.time(r)) - 2 * np.log(alpha)
    np.testing.assert_allclose(log_prob_of(density, X, t), expected, rtol=1e-3, atol=1e-3)


def test_conditions_of_one_density_are_evaluated_together():
    density = energy()
    one, two = density.given([1.0, 0.0]), density.given([0.0, 1.0])
    guided = one**2 * two / density
    assert [len(conditions) for conditions in guided.conditions] == [3]
    expected = 2 * log_prob_of(one, X, 0.3) + log_prob_of(two, X, 0.3) - log_prob_of(density, X, 0.3)
    np.testing.assert_allclose(log_prob_of(guided, X, 0.3), expected, rtol=1e-4, atol=1e-4)


# Fitting.


def test_fit_of_a_single_component_is_the_shrunk_class_moments():
    x = GREY[:, :2]
    fitted = nd.MixtureBase.fit(x, LABELS, shrinkage=7.0, added_variance=0.01)
    within = [np.cov(x[LABELS[:, j] == 1].T, bias=True) for j in range(2)]
    for j in range(2):
        np.testing.assert_allclose(fitted.means[j], x[LABELS[:, j] == 1].mean(0), atol=1e-5)
        expected = (30 * within[j] + 7 * within[j] + 7 * np.mean(within, 0)) / 44 + 0.01 * np.eye(2)
        v = np.asarray(fitted.eigenvectors[j])
        np.testing.assert_allclose((v * np.asarray(fitted.eigenvalues[j])) @ v.T, expected, atol=1e-5)
    np.testing.assert_allclose(fitted.weights, [[1, 0], [0, 1], [0.5, 0.5]], atol=1e-6)


def test_folds_make_the_axes_as_wide_as_points_not_seen():
    # 24 points a class in 12 dimensions, hardly any prior; other draws of the same Gaussians to compare.
    rng = np.random.default_rng(3)
    scale, centres = np.geomspace(0.05, 1.0, 12), 3 * rng.normal(size=(20, 12))
    few, many = (np.repeat(np.arange(20), n) for n in (24, 200))
    x, fresh = (centres[label] + scale * rng.normal(size=(len(label), 12)) for label in (few, many))
    widths, likelihoods = [], []
    for folds in (0, 8):
        fitted = nd.MixtureBase.fit(x, np.eye(20)[few], shrinkage=0.5, num_folds=folds)
        z = np.einsum("nj,nji->ni", fresh - fitted.means[many], np.asarray(fitted.eigenvectors)[many])
        widths.append((z**2 / np.asarray(fitted.eigenvalues)[many]).reshape(-1, 4, 3).mean((0, 2)))
        likelihoods.append(jax.vmap(lambda y, m=fitted: m.log_prob(y, 0.0))(jnp.asarray(fresh)).mean())
    np.testing.assert_allclose(widths[1], 1.0, atol=0.2)
    assert widths[0][0] > 3 and likelihoods[1] > likelihoods[0] + 2


def test_folds_leave_a_fit_to_many_points():
    x = np.random.default_rng(4).normal(size=(20_000, 3)) * [0.1, 1.0, 3.0]
    plain, folded = (nd.MixtureBase.fit(x, num_folds=n) for n in (0, 2))
    np.testing.assert_allclose(folded.eigenvalues, plain.eigenvalues, rtol=0.01)
    again = nd.MixtureBase.fit(x, num_folds=2)
    np.testing.assert_array_equal(folded.eigenvalues, again.eigenvalues)


def test_fit_without_classes():
    fitted = nd.MixtureBase.fit(GREY.reshape(60, 2, 2), num_components=3)
    assert fitted.means.shape == (3, 4) and fitted.condition_size == 0
    np.testing.assert_allclose(fitted.moments().mean, GREY.mean(0), atol=1e-4)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: nd.MixtureBase.of(MEANS, COVARIANCES[:2], WEIGHTS), ShapeError, "need means"),
        (lambda: nd.MixtureBase.of(MEANS, COVARIANCES, WEIGHTS[:, :2]), ShapeError, "weights must have shape"),
        (lambda: nd.MixtureBase.of(MEANS, -COVARIANCES, WEIGHTS), ParameterError, "positive definite"),
        (lambda: nd.MixtureBase.of(MEANS, COVARIANCES, -WEIGHTS), ParameterError, "weights must be >= 0"),
        (lambda: nd.MixtureBase.of(np.nan * MEANS, COVARIANCES, WEIGHTS), ParameterError, "finite"),
        (lambda: nd.MixtureBase.fit(GREY[0]), ShapeError, "points must have shape"),
        (lambda: nd.MixtureBase.fit(GREY, 0.5 * LABELS), ShapeError, "one-hot"),
        (lambda: nd.MixtureBase.fit(GREY, 0 * LABELS), ShapeError, "none or several"),
        (lambda: nd.MixtureBase.fit(GREY, num_components=0), ParameterError, "num_components"),
        (lambda: nd.MixtureBase.fit(GREY, LABELS, num_components=31), ParameterError, "every class needs"),
        (lambda: nd.MixtureBase.fit(GREY, num_folds=1), ParameterError, "num_folds must be 0 or .* >= 2; got 1"),
        (lambda: nd.MixtureBase.fit(GREY, num_folds=2.5), ParameterError, "num_folds must be"),
        (lambda: nd.MixtureBase.fit(GREY, LABELS, num_components=16, num_folds=2), ParameterError, "outside every"),
        (lambda: nd.MixtureBase.fit(GREY, shrinkage=-1.0), ParameterError, "shrinkage"),
        (lambda: nd.MixtureBase.fit(np.nan * GREY), ParameterError, "finite"),
        (lambda: energy().given([1.0, -1.0]), ParameterError, "must weigh the classes"),
        (lambda: energy().given([0.0, 0.0]), ParameterError, "must weigh the classes"),
        (lambda: fit_with(base=base()), ShapeError, "dimension 4"),
        (lambda: fit_with(base=four(), network=PATCHES), ShapeError, "0 classes or none; got 2"),
        (lambda: fit_with(base=four(None), network=nd.PatchConfig()), ShapeError, "grid"),
        (lambda: fit_with(network=PATCHES), ParameterError, "stands on a mixture"),
        (lambda: fit_with(base=four(None), model="score"), ParameterError, "score model"),
        (lambda: fit_with(base=four(None), calibrated=False), ParameterError, "calibrated=False"),
        (lambda: nd.PatchConfig(patch_size=2), ParameterError, "odd"),
        (lambda: nd.PatchConfig(limits=(1.0, -1.0)), ParameterError, "limits"),
        (lambda: nd.PatchConfig(resolution=0.0), ParameterError, "resolution"),
        (lambda: nd.TrainingConfig(weight_decay=-1.0), ParameterError, "weight_decay"),
    ],
)
def test_refused(call, error, match):
    with pytest.raises(error, match=match):
        call()


def four(labels=LABELS):
    return nd.MixtureBase.fit(GREY, labels)


def fit_with(**kwargs):
    return nd.fit(jax.random.key(0), GREY, training=SHORT, progress_bar=False, **kwargs)


# Training and storage.


def test_save_and_load(fitted, tmp_path):
    path = tmp_path / "grey.safetensors"
    density = fitted._replace(class_log_z=jnp.ones((2, fitted.log_z.shape[1])))
    nd.save(density, path)
    again = nd.load(path)
    assert jax.tree.structure(again) == jax.tree.structure(density)
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(density), strict=True):
        np.testing.assert_array_equal(a, b)
    arrays, config = storage.checkpoint.read(path)
    for broken in (
        {"base.weights": arrays["base.weights"][:, :1]},
        {"base.weights": arrays["base.weights"][:2]},
        {"class_log_z": arrays["class_log_z"][:1]},
    ):
        storage.checkpoint.write(path, arrays | broken, config)
        with pytest.raises(CheckpointError, match="intact but does not describe"):
            nd.load(path)


def test_densities_without_a_base_have_none():
    ring = nd.load_pretrained("ring")
    assert isinstance(ring, nd.EnergyDensity) and ring.base is None and ring.class_log_z is None


def test_training_resumes(fitted, tmp_path, monkeypatch):
    monkeypatch.setattr(optimise, "CHUNK", 10)
    path, mixture = tmp_path / "grey.training", nd.MixtureBase.fit(GREY, LABELS, num_components=2)
    settings = {"conditions": LABELS, "network": PATCHES, "checkpoint_path": path}
    first = fit_with(base=mixture, **settings)
    again = fit_with(base=mixture, **settings)
    for density in (first, again):
        for a, b in zip(jax.tree.leaves(density.state), jax.tree.leaves(fitted.state), strict=True):
            np.testing.assert_array_equal(a, b)
    with pytest.raises(CheckpointError, match="base"):
        fit_with(base=nd.MixtureBase.fit(GREY, LABELS), **settings)


def test_weight_decay_shrinks_the_matrices_of_the_network():
    density = energy(potential=False)

    @functools.partial(jax.jit, static_argnames="config")
    def move(state, config):
        # The first step of the warm-up has rate zero.
        optimiser, still = config.optimiser(), jax.tree.map(jnp.zeros_like, state)
        _, second = optimiser.update(still, optimiser.init(state), state)
        return optimiser.update(still, second, state)[0]

    unmoved = move(density.state, nd.TrainingConfig(num_steps=20))
    assert not any(np.any(a) for a in jax.tree.leaves(unmoved))
    moved = move(density.state, nd.TrainingConfig(num_steps=20, weight_decay=0.1))
    for path, a in jax.tree_util.tree_flatten_with_path(moved)[0]:
        text = jax.tree_util.keystr(path)
        assert bool(np.any(a)) == (a.ndim >= 2 and "offset" not in text), text


def test_widened_multiplies_every_covariance():
    base = nd.MixtureBase.of([[0.0, 1.0], [2.0, 0.0]], [np.diag([1.0, 2.0]), np.eye(2)], [[0.3, 0.7]])
    means, covariances = np.array([[0.0, 1.0], [2.0, 0.0]]), [1.5 * np.diag([1.0, 2.0]), 1.5 * np.eye(2)]
    expected = nd.exact.GaussianMixture(means, covariances, [0.3, 0.7]).log_prob(np.array([0.4, -0.3]), 0.0)
    assert float(base.widened(1.5).log_prob(jnp.array([0.4, -0.3]), 0.0)) == pytest.approx(float(expected), abs=1e-4)
    for factor in (0.0, -1.0, np.nan):
        with pytest.raises(nd.errors.ParameterError, match="factor must be positive"):
            base.widened(factor)


def test_points_come_first():
    with pytest.raises(nd.errors.ArgumentTypeError, match="random_state"):
        nd.MixtureBase.fit(jax.random.key(0), GREY)
