"""Everything that is refused: a typed exception that names the rule, the value and the remedy."""

import jax
import numpy as np
import pytest
from small import box, function, gaussian, mixture, network

import numpyro_diffusion as nd
from numpyro_diffusion.errors import ParameterError, ScheduleError, ScoreOnlyError, ShapeError, UnknownNameError

KEY = jax.random.key(0)
POINT = np.zeros(2)
DATA = np.random.default_rng(0).normal(size=(50, 2))
EYE = np.eye(2)


def with_nan(array):
    array = np.array(array, dtype=float)
    array.flat[3] = np.nan
    return array


def three_dimensional():
    return nd.exact.GaussianMixture(np.zeros((1, 3)), np.eye(3)[None], name="q")


def exploding():
    return gaussian(schedule=nd.VarianceExploding())


def fit(data=DATA, **kwargs):
    return nd.fit(KEY, data, **({"progress_bar": False} | kwargs))


# what: (call, exception, words of the message: rule, value, remedy)
REFUSED = {
    # Points and times.
    "points of another dimension": (
        lambda: gaussian().log_prob(np.zeros(3)), ShapeError, r"\(2,\).*got \(3,\)"),
    "a batch of another dimension": (
        lambda: network().score(np.zeros((5, 3)), 0.5), ShapeError, r"\(2,\).*got \(5, 3\)"),
    "a scalar for a point": (lambda: gaussian().log_prob(0.0), ShapeError, r"got \(\)"),
    "complex points": (lambda: gaussian().log_prob(1j * POINT), ShapeError, r"real.*got dtype complex.*astype"),
    "points of text": (lambda: gaussian().log_prob(["a", "b"]), ShapeError, r"numeric array.*got list"),
    "boolean points": (lambda: gaussian().log_prob(POINT > 0), ShapeError, r"real numbers.*bool.*astype"),
    "t above one": (lambda: gaussian().log_prob(POINT, 1.5), ParameterError, r"t must lie in \[0, 1\].*got 1.5"),
    "t below zero": (lambda: (gaussian() * box()).score(POINT, -0.1), ParameterError, r"\[0, 1\].*got -0.1"),
    "t not a number": (lambda: gaussian().log_prob(POINT, np.nan), ParameterError, r"\[0, 1\].*got nan"),
    "t of text": (lambda: gaussian().log_prob(POINT, "late"), ParameterError, r"number in \[0, 1\].*'late'"),
    "one of many t": (
        lambda: gaussian().log_prob(np.zeros((2, 2)), np.array([0.5, 2.0])), ParameterError, r"\[0, 1\].*2\."),
    "t for the potential": (lambda: box().potential_fn(2.0), ParameterError, r"\[0, 1\].*got 2.0"),
    "t for samples": (lambda: box().sample(KEY, 3, 1.1), ParameterError, r"\[0, 1\].*got 1.1"),
    "as many t as no points": (
        lambda: gaussian().log_prob(np.zeros((4, 2)), np.full(3, 0.5)), ShapeError,
        r"match the batch of x, \(4,\); got shape \(3,\).*add an axis"),
    # The algebra.
    "weight zero": (lambda: 0 * gaussian(), ParameterError, r"weight must be positive; got 0.*p / q \*\* alpha"),
    "weight negative": (lambda: gaussian() + -1.0 * box(), ParameterError, r"positive; got -1"),
    "weight NaN": (lambda: np.nan * gaussian(), ParameterError, r"finite; got nan"),
    "exponent infinite": (lambda: gaussian() ** np.inf, ParameterError, r"exponent must be finite; got inf"),
    "exponent an array": (lambda: gaussian() ** np.ones(2), TypeError, r"real number"),
    "exponent of text": (lambda: gaussian() ** "two", TypeError, r"real number; got 'two'"),
    "sum with a number": (lambda: gaussian() + 1.0, TypeError, r"adds to a density.*got float"),
    "difference": (lambda: gaussian() - box(), TypeError, r"negative.*p / q \*\* alpha"),
    "other event shapes": (
        lambda: gaussian() * three_dimensional(), ShapeError, r"one event shape; got \(2,\) and \(3,\)"),
    "other schedules": (
        lambda: gaussian() * exploding(), ScheduleError, r"one schedule; got Variance.*and Variance.*with_schedule"),
    "other schedules in a sum": (lambda: gaussian() + exploding(), ScheduleError, r"one schedule.*with_schedule"),
    # Named compositions.
    "no product": (lambda: nd.product(), ParameterError, r"at least one density; got none"),
    "no mixture": (lambda: nd.mixture(), ParameterError, r"at least one density; got none"),
    "a function in a product": (
        lambda: nd.product(gaussian(), lambda x, t: 0.0), TypeError, r"takes densities; got function.*nd.as_density"),
    "too few exponents": (
        lambda: nd.product(gaussian(), box(), exponents=[1.0]), ParameterError,
        r"exponents must be 2.*got shape \(1,\)"),
    "exponents NaN": (
        lambda: nd.product(gaussian(), box(), exponents=[1.0, np.nan]), ParameterError, r"finite; got .*nan"),
    "exponents of text": (lambda: nd.product(gaussian(), exponents=["x"]), ParameterError, r"1 real numbers; got"),
    "too many weights": (
        lambda: nd.mixture(gaussian(), box(), weights=[1, 2, 3]), ParameterError,
        r"weights must be 2.*got shape \(3,\)"),
    "a weight of zero": (
        lambda: nd.mixture(gaussian(), box(), weights=[1, 0]), ParameterError, r"positive; got.*0.*Leave out"),
    "a weight below zero": (
        lambda: nd.mixture(gaussian(), box(), weights=[2, -1]), ParameterError, r"positive; got.*-1.*Leave out"),
    "negation by nothing": (
        lambda: nd.negation(gaussian(), box(), 0.0), ParameterError, r"\(0, 1\]; got 0.0.*p / q \*\* alpha"),
    "negation too strong": (lambda: nd.negation(gaussian(), box(), 1.5), ParameterError, r"\(0, 1\]; got 1.5"),
    "negation with a floor of one": (
        lambda: nd.negation(gaussian(), box(), floor=1.0), ParameterError, r"floor.*\[0, 1\); got 1.0"),
    "negation of a score with a floor": (
        lambda: nd.negation(gaussian(), network("score"), floor=0.1), ScoreOnlyError, r"only a score"),
    "temperature zero": (lambda: nd.temper(gaussian(), 0.0), ParameterError, r"temperature must be positive; got 0"),
    "temperature negative": (
        lambda: nd.temper(gaussian(), -1), ParameterError,
        r"temperature must be positive; got -1"),
    "temperature infinite": (lambda: nd.temper(gaussian(), np.inf), ParameterError, r"temperature must be finite"),
    "guidance by text": (
        lambda: nd.guided(gaussian(), box(), "much"), ParameterError,
        r"scale must be one real number"),
    "guidance NaN": (lambda: nd.guided(gaussian(), box(), np.nan), ParameterError, r"scale must be finite; got nan"),
    "alpha zero": (lambda: nd.harmonic_mean(gaussian(), box(), alpha=0.0), ParameterError, r"\(0, 1\); got 0.0"),
    "alpha one": (lambda: nd.contrast(gaussian(), box(), alpha=1), ParameterError, r"\(0, 1\); got 1.0"),
    "alpha NaN": (lambda: nd.contrast(gaussian(), box(), alpha=np.nan), ParameterError, r"alpha must be finite"),
    "alpha by place": (lambda: nd.harmonic_mean(gaussian(), box(), 0.5), TypeError, r"got float.*by keyword"),
    "alpha for three": (
        lambda: nd.harmonic_mean(gaussian(), box(), mixture(), alpha=0.5), ParameterError,
        r"two densities; got 3.*weights"),
    "alpha for a contrast of three": (
        lambda: nd.contrast(gaussian(), box(), mixture(), alpha=0.5), ParameterError, r"two densities; got 3.*weights"),
    "alpha and weights": (
        lambda: nd.contrast(gaussian(), box(), alpha=0.5, weights=[1, 1]), ParameterError, r"not both"),
    "weights of a harmonic mean": (
        lambda: nd.harmonic_mean(gaussian(), box(), weights=[1, -1]), ParameterError, r"positive; got"),
    "harmonic mean across shapes": (
        lambda: nd.harmonic_mean(gaussian(), three_dimensional()), ShapeError, r"\(2,\) and \(3,\)|\(3,\) and \(2,\)"),
    "harmonic mean across schedules": (
        lambda: nd.harmonic_mean(gaussian(), exploding()), ScheduleError, r"one schedule.*with_schedule"),
    # Score-only models.
    "log density of a score": (
        lambda: network("score").log_prob(POINT, 0.5), ScoreOnlyError, r"only a score.*model='energy'"),
    "potential of a score": (lambda: network("score").potential_fn(0.5), ScoreOnlyError, r"only a score.*nd.ULA"),
    "mixture with a score": (lambda: gaussian() + network("score"), ScoreOnlyError, r"mixture needs.*only a score"),
    "mixture of scores": (lambda: nd.mixture(network("score"), box()), ScoreOnlyError, r"only a score"),
    "harmonic mean of scores": (
        lambda: nd.harmonic_mean(network("score"), box()), ScoreOnlyError, r"harmonic mean needs.*only a score"),
    "contrast of scores": (
        lambda: nd.contrast(box(), network("score")), ScoreOnlyError,
        r"contrast needs.*only a score"),
    # Conditions.
    "condition of another length": (
        lambda: network(condition_size=2).given(np.zeros(3)), ShapeError, r"\(2,\); got \(3,\)"),
    "condition without a network for it": (lambda: network().given([1.0]), ShapeError, r"without conditions.*nd.fit"),
    "conditions as one vector": (
        lambda: nd.compose_conditions(network(condition_size=2), [1.0, 0.0]), ShapeError, r"\[c, k\]; got \(2,\)"),
    "conditions of another length": (
        lambda: nd.compose_conditions(network(condition_size=2), np.zeros((2, 3))), ShapeError, r"\(2,\); got \(3,\)"),
    "conditions of text": (
        lambda: nd.compose_conditions(network(condition_size=2), [["a", "b"]]), ShapeError, r"array \[c, k\]; got"),
    "no conditions": (
        lambda: nd.compose_conditions(network(condition_size=2), np.zeros((0, 2))), ParameterError, r"at least one"),
    "too few condition weights": (
        lambda: nd.compose_conditions(network(condition_size=2), np.eye(2), [1.0]), ParameterError, r"must be 2"),
    "conditions on an exact density": (
        lambda: nd.compose_conditions(gaussian(), [[1.0]]), TypeError, r"trained with conditions.*product"),
    "guidance without conditions": (
        lambda: nd.classifier_free_guided(gaussian(), [1.0], 2.0), TypeError, r"trained with conditions"),
    "guidance on an unconditional network": (
        lambda: nd.classifier_free_guided(network(), [1.0], 2.0), ShapeError, r"without conditions"),
    "guidance scale infinite": (
        lambda: nd.classifier_free_guided(network(condition_size=1), [1.0], np.inf), ParameterError, r"must be finite"),
    # Exact densities.
    "means of one axis": (
        lambda: nd.exact.GaussianMixture([0.0, 0.0], EYE[None]), ShapeError,
        r"means must have 2 axes"),
    "covariances that do not match": (
        lambda: nd.exact.GaussianMixture(np.zeros((2, 2)), EYE[None]), ShapeError, r"\(2, 2, 2\).*got \(1, 2, 2\)"),
    "weights that do not match": (
        lambda: nd.exact.GaussianMixture([POINT], [EYE], [0.5, 0.5]), ShapeError, r"\(1,\).*got \(2,\)"),
    "mixture weight zero": (
        lambda: nd.exact.GaussianMixture([POINT] * 2, [EYE] * 2, [1.0, 0.0]), ParameterError, r"positive.*Drop"),
    "covariance not symmetric": (
        lambda: nd.exact.GaussianMixture([POINT], [[[1.0, 0.5], [0.0, 1.0]]]), ParameterError, r"symmetric"),
    "covariance not positive": (
        lambda: nd.exact.GaussianMixture([POINT], [[[1.0, 0.0], [0.0, -1.0]]]), ParameterError, r"definite.*-1"),
    "means NaN": (lambda: nd.exact.GaussianMixture([[0.0, np.nan]], [EYE]), ParameterError, r"means must be finite"),
    "means of text": (lambda: nd.exact.GaussianMixture([["a", "b"]], [EYE]), ShapeError, r"means must be a numeric"),
    "box inside out": (lambda: nd.exact.UniformBox([0, 0], [1, -1]), ParameterError, r"low must be below high.*got"),
    "box of two shapes": (lambda: nd.exact.UniformBox([0, 0], [1]), ShapeError, r"one shape; got \(2,\) and \(1,\)"),
    "box NaN": (lambda: nd.exact.UniformBox([0, np.nan], [1, 1]), ParameterError, r"low must be finite"),
    # A user's function.
    "not a function": (lambda: nd.as_density(3.0, (2,)), TypeError, r"takes a function.*got float"),
    "one moment": (lambda: nd.as_density(lambda x, t: 0.0, (2,), mean=POINT), ShapeError, r"both mean and covariance"),
    "moments of another shape": (
        lambda: nd.as_density(lambda x, t: 0.0, (2,), mean=POINT, covariance=np.eye(3)), ShapeError,
        r"\[2\] and \[2, 2\].*got"),
    "a function that returns a vector": (
        lambda: nd.as_density(lambda x, t: x, (2,)).log_prob(POINT), ShapeError,
        r"scalar for one point; got shape \(2,\)"),
    "a function beyond its levels": (
        lambda: function().with_schedule(nd.VarianceExploding(0.0, 1e3)), ScheduleError, r"asks for.*Choose"),
    # Schedules and networks.
    "unknown shape": (lambda: nd.VariancePreserving("sine"), ParameterError, r"'cosine' or 'linear'; got 'sine'"),
    "no noise": (lambda: nd.VariancePreserving.cosine(0.0), ParameterError, r"sigma_max must be positive.*got 0.0"),
    "rates that fall": (
        lambda: nd.VariancePreserving.linear(2.0, 1.0), ParameterError,
        r"beta_max must exceed beta_min"),
    "noise that falls": (lambda: nd.VarianceExploding(2.0, 1.0), ParameterError, r"sigma_min < sigma_max; got 2.0"),
    "noise NaN": (lambda: nd.VarianceExploding(sigma_max=np.nan), ParameterError, r"sigma_max must be positive.*nan"),
    "one level": (lambda: nd.VarianceExploding().levels(1), ParameterError, r"at least 2; got 1"),
    "width zero": (lambda: nd.NetworkConfig(width=0), ParameterError, r"width must be an integer >= 1, .*; got 0"),
    "width not whole": (lambda: nd.NetworkConfig(width=2.5), ParameterError, r"width must be an integer"),  # pyright: ignore
    "embedding odd": (lambda: nd.NetworkConfig(embedding_size=5), ParameterError, r"even; got 5"),
    # Training.
    "data NaN": (lambda: fit(with_nan(DATA)), ParameterError, r"data must be finite; got 1 NaN.*Remove"),
    "data infinite": (lambda: fit(DATA * np.inf), ParameterError, r"data must be finite; got 100"),
    "data of integers": (
        lambda: fit(np.ones((5, 2), dtype=int)), ShapeError,
        r"floating point; got dtype int.*Convert"),
    "data of text": (lambda: fit(np.array([["a", "b"]] * 5)), ShapeError, r"floating point; got dtype"),
    "data of one axis": (lambda: fit(np.zeros(5)), ShapeError, r"\[n, \*event_shape\].*got \(5,\)"),
    "one point": (lambda: fit(np.zeros((1, 2))), ShapeError, r"n >= 2; got \(1, 2\)"),
    "constant data": (lambda: fit(np.ones((9, 2))), ParameterError, r"data must vary"),
    "conditions NaN": (lambda: fit(conditions=with_nan(DATA)), ParameterError, r"conditions must be finite; got 1"),
    "conditions that do not match": (lambda: fit(conditions=np.zeros((9, 1))), ShapeError, r"\[50, c\]; got \(9, 1\)"),
    "conditions as labels": (lambda: fit(conditions=np.array(["a"] * 50)), ShapeError, r"numbers; got dtype.*One-hot"),
    "conditions beside a sampler": (
        lambda: fit(lambda key, n: jax.random.normal(key, (n, 2)), conditions=DATA), ParameterError,
        r"\(x, conditions\)"),
    "a sampler of NaN": (
        lambda: fit(lambda key, n: np.nan * jax.random.normal(key, (n, 2))), ParameterError, r"data must be finite"),
    "unknown model": (lambda: fit(model="flow"), ParameterError, r"'energy' or 'score'; got 'flow'"),
    "unknown parameterisation": (lambda: fit(parameterisation="l3"), ParameterError, r"one of .*'l2'.*got 'l3'"),
    "noise range reversed": (
        lambda: fit(sigma_min=2.0, sigma_max=1.0), ParameterError,
        r"sigma_min < sigma_max; got 2.0"),
    "noise range from zero": (lambda: fit(sigma_min=0.0), ParameterError, r"0 < sigma_min < sigma_max; got 0.0"),
    "no steps": (lambda: nd.TrainingConfig(num_steps=0), ParameterError, r"num_steps must be an integer >= 1; got 0"),
    "half a step": (lambda: nd.TrainingConfig(num_steps=0.5), ParameterError, r"num_steps"),  # pyright: ignore
    "no batch": (lambda: nd.TrainingConfig(batch_size=0), ParameterError, r"batch_size must be an integer >= 1; got 0"),
    "learning rate negative": (lambda: nd.TrainingConfig(learning_rate=-1.0), ParameterError, r"positive; got -1.0"),
    "decay one": (lambda: nd.TrainingConfig(ema_decay=1.0), ParameterError, r"ema_decay must lie in \[0, 1\); got 1.0"),
    "dropout NaN": (lambda: nd.TrainingConfig(condition_dropout=np.nan), ParameterError, r"condition_dropout.*got nan"),
    # Names.
    "unknown pretrained density": (lambda: nd.load_pretrained("rnig"), UnknownNameError, r"'rnig'. There are .*ring"),
    "card of an unknown density": (lambda: nd.pretrained_card("../x"), UnknownNameError, r"no pretrained density"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_refused(what):
    call, exception, words = REFUSED[what]
    with pytest.raises(exception, match=f"(?s){words}"):
        call()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_training_that_diverges_says_so(tmp_path):
    config = nd.TrainingConfig(num_steps=30, batch_size=16, learning_rate=1e30, max_gradient_norm=1e30)
    network_config = nd.NetworkConfig(width=8, num_blocks=1)
    with pytest.raises(ParameterError, match=r"the loss became (nan|inf).*Lower learning_rate"):
        fit(training=config, network=network_config, checkpoint_path=tmp_path / "run")


def test_every_error_is_ours_and_the_builtin():
    assert issubclass(UnknownNameError, (nd.errors.DiffusionError, KeyError))
    for error in (ShapeError, ScheduleError, ParameterError, nd.errors.CheckpointError):
        assert issubclass(error, nd.errors.DiffusionError) and issubclass(error, ValueError)
    assert issubclass(ScoreOnlyError, nd.errors.DiffusionError) and issubclass(ScoreOnlyError, TypeError)
    assert str(UnknownNameError("no such name")) == "no such name"
