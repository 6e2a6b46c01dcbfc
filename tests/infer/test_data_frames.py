"""Columns of data frames in models: as data they are arrays, in computations with latents they are refused; masks."""

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest
from densities import joint_density
from infer.models import PRIOR

import numpyro_diffusion as nd
from numpyro_diffusion.errors import ArgumentTypeError, ParameterError
from numpyro_diffusion.infer.model_call import ModelCall

FRAME = pd.DataFrame({"dose": [1.0, 2.0, 0.5], "y": [0.3, 0.8, -0.1]}, index=["a", "b", "c"])


def model(dose, y):
    x = numpyro.sample("x", PRIOR)
    with numpyro.plate("n", len(y)):
        numpyro.sample("y", dist.Normal(x[0] * dose, 0.5), obs=y)


def posterior(*columns):
    mcmc = nd.AnnealedMCMC(model, nd.HMC(step_size=0.5), num_chains=60, levels=6, progress_bar=False)
    mcmc.run(jax.random.key(0), *columns)
    return mcmc


@pytest.mark.filterwarnings("ignore::numpyro_diffusion.errors.DiagnosticWarning")
def test_a_column_is_data_like_its_array():
    dose = FRAME["dose"].to_numpy()
    by_array, by_column = posterior(dose, FRAME["y"].to_numpy()), posterior(dose, FRAME["y"])
    np.testing.assert_array_equal(by_column.get_samples()["x"], by_array.get_samples()["x"])
    assert by_column.log_evidence == by_array.log_evidence
    tree = by_column.to_datatree()
    np.testing.assert_allclose(tree["observed_data"]["y"], FRAME["y"])
    assert tree["log_likelihood"]["y"].shape[-1] == 3


@pytest.mark.parametrize("data", [FRAME, FRAME["y"]], ids=["frame", "column"])
def test_a_frame_is_read_as_it_was_when_it_was_given(data):
    data = data.copy()
    call = ModelCall.of(model, (1.0,), {"y": data})
    assert call.is_called_like(ModelCall.of(model, (1.0,), {"y": data.copy()}))
    data.iloc[0] = 7.0
    assert not call.is_called_like(ModelCall.of(model, (1.0,), {"y": data}))


def test_a_list_is_data_like_its_array():
    joints = [joint_density(jax.random.key(0), model, (1.0, y)) for y in ([0.3, 0.8], np.array([0.3, 0.8]))]
    values = [joint.log_density(np.zeros(2), 0.0) for joint in joints]
    assert values[0] == values[1]


def branching(y):
    x = numpyro.sample("x", PRIOR)
    numpyro.sample("y", dist.Normal(x[1] if x[0] > 0 else x[0], 0.5), obs=y)


def test_an_if_on_a_latent_is_refused():
    with pytest.raises(ArgumentTypeError, match=r"the model branching must compute with its latents by JAX.*lax.cond"):
        joint_density(jax.random.key(0), branching, (0.3,))


def test_a_column_times_a_latent_is_refused():
    with pytest.raises(ArgumentTypeError, match=r"the model model must compute with its latents by JAX.*to_numpy\(\)"):
        posterior(FRAME["dose"], FRAME["y"])


MASKED = np.ma.masked_equal([0.3, -999.0, -0.1], -999.0)


@pytest.mark.parametrize("data", ["an argument", "a global"])
def test_masked_values_are_refused_and_a_mask_of_none_is_nothing(data):
    def fixed(y=None):
        return model(np.ones(3), MASKED if y is None else y)

    mcmc = nd.AnnealedMCMC(fixed, num_chains=4, progress_bar=False)
    with pytest.raises(ParameterError, match="no masked values; got 1. Give value.data"):
        mcmc.run(jax.random.key(0), *([MASKED] if data == "an argument" else []))
    (whole,) = ModelCall.of(model, (np.ma.masked_array([1.0, 2.0]),), {}).args
    assert type(whole) is np.ndarray
