"""Data, settings and conditions that training refuses."""

import jax
import numpy as np
import pandas as pd
import pytest
from refusals import assert_refused, refusals

import numpyro_diffusion as nd
from numpyro_diffusion.errors import ParameterError, ShapeError
from numpyro_diffusion.train.data import check_data

KEY = jax.random.key(0)
DATA = np.random.default_rng(0).normal(size=(50, 2))


def with_nan(array):
    array = np.array(array, dtype=float)
    array.flat[3] = np.nan
    return array


def fit(data=DATA, **kwargs):
    return nd.fit(KEY, data, **({"progress_bar": False} | kwargs))


#: What is refused: (call, error, words of the message: rule, value, remedy).
REFUSED = {
    "data NaN": (lambda: fit(with_nan(DATA)), ParameterError, r"data must be finite; got 1 NaN.*Remove"),
    "data infinite": (lambda: fit(DATA * np.inf), ParameterError, r"data must be finite; got 100"),
    "data of integers": (
        lambda: fit(np.ones((5, 2), dtype=int)), ShapeError,
        r"floating point; got dtype int.*Convert"),
    "data of text": (lambda: fit(np.array([["a", "b"]] * 5)), ShapeError, r"floating point; got dtype"),
    "data of one axis": (lambda: fit(np.zeros(5)), ShapeError, r"\[n, \*event_shape\].*got \(5,\)"),
    "one point": (lambda: fit(np.zeros((1, 2))), ShapeError, r"n >= 2; got \(1, 2\)"),
    "masked data": (
        lambda: fit(np.ma.masked_greater(DATA, 1.0)), ParameterError, r"data must hold no masked values.*~data.mask"),
    "columns of text": (
        lambda: fit(pd.DataFrame(DATA).assign(name="a")), ShapeError, r"real numbers; got objects.*in column name"),
    "missing values": (
        lambda: fit(pd.DataFrame(DATA).astype("Float64").where(DATA < 1)), ShapeError, r"in column .*missing values"),
    "no columns": (lambda: fit(np.zeros((9, 0))), ShapeError, r"no axis of length 0.*got \(9, 0\)"),
    "constant data": (lambda: fit(np.ones((9, 2))), ParameterError, r"data must vary"),
    "conditions NaN": (lambda: fit(conditions=with_nan(DATA)), ParameterError, r"conditions must be finite; got 1"),
    "conditions alike to float32": (
        lambda: fit(conditions=1.6e9 + np.arange(50.0)[:, None]), ParameterError,
        r"column 0 has a spread of 14.4 about 1.6e\+09. Subtract that mean"),
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
    "learning rate as text": (
        lambda: nd.TrainingConfig(learning_rate="x"), ParameterError,  # pyright: ignore
        r"learning_rate must be positive; got 'x'. The default is 0.002"),
    "no learning rate": (lambda: nd.TrainingConfig(learning_rate=None), ParameterError, r"positive; got None"),  # pyright: ignore
    "weights of text": (
        lambda: nd.TrainingConfig(time_score_weight=[1.0]), ParameterError,  # pyright: ignore
        r"time_score_weight must be >= 0; got \[1.0\]"),
    "infinite decay": (lambda: nd.TrainingConfig(weight_decay=np.inf), ParameterError, r"weight_decay.*; got inf"),
    "settings of another kind": (lambda: fit(training={}), TypeError, r"training must be a TrainingConfig; got {}"),
    "a network of text": (lambda: fit(network="unet"), TypeError, r"network must be a NetworkConfig or .*got 'unet'"),
    "noise range of text": (
        lambda: fit(sigma_min="x"), ParameterError, r"sigma_min must be >= 0; got 'x'. Leave it out"),
    "saved every never": (
        lambda: fit(checkpoint_every_seconds=-1), ParameterError, r"every_seconds must be >= 0; got -1. A minute"),
    "dropout NaN": (lambda: nd.TrainingConfig(condition_dropout=np.nan), ParameterError, r"condition_dropout.*got nan"),
}  # fmt: skip


@refusals(REFUSED)
def test_refused(call, error, words):
    assert_refused(call, error, words)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_training_that_diverges_says_so(tmp_path):
    config = nd.TrainingConfig(num_steps=30, batch_size=16, learning_rate=1e30, max_gradient_norm=1e30)
    network_config = nd.NetworkConfig(width=8, num_blocks=1)
    with pytest.raises(ParameterError, match=r"the loss became (nan|inf).*Lower learning_rate"):
        fit(training=config, network=network_config, checkpoint_path=tmp_path / "run")


def test_frames_of_nullable_numbers_and_booleans_are_data():
    frame, groups = pd.DataFrame(DATA).astype("Float64"), pd.get_dummies(pd.Series(list("ab") * (len(DATA) // 2)))
    points = check_data(KEY, frame, groups, 10, 4)[1]
    np.testing.assert_array_equal(points.data, DATA)
    np.testing.assert_array_equal(points.conditions.sum(axis=1), 1)


def test_frames_of_numbers_and_booleans_are_conditions():
    frame = pd.DataFrame({"age": np.arange(len(DATA)), "smokes": np.arange(len(DATA)) % 2 == 0})
    conditions = check_data(KEY, DATA, frame, 10, 4)[1].conditions
    np.testing.assert_array_equal(conditions, frame.astype(float))
