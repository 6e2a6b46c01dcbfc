"""What is not ours to take is refused with an error of this package, which is the built-in one as well."""

import jax
import numpy as np
import pytest
from small import gaussian, network

import numpyro_diffusion as nd
from numpyro_diffusion.diagnose.datatree import to_datatree
from numpyro_diffusion.diagnose.summary import summary
from numpyro_diffusion.errors import DiffusionError

KEY = 0  # never looked at: the kinds of arguments come first


class Unknown(nd.exact.GaussianMixture):
    """A user's class that JAX does not know to hold arrays."""


def unknown():
    return Unknown(np.zeros((1, 2)), np.eye(2)[None])


WRONG = {
    "anneal a class that is no pytree": (lambda: nd.anneal(KEY, unknown()), TypeError, "got Unknown.*Decorate"),
    "anneal a product with one": (lambda: nd.anneal(KEY, gaussian() * unknown()), TypeError, "got Unknown.*Decorate"),
    "a prior of one": (lambda: nd.DiffusionPrior(unknown()), TypeError, "got Unknown.*register"),
    "anneal a function": (lambda: nd.anneal(KEY, lambda x, t: 0.0), TypeError, "takes a density.*nd.as_density"),
    "anneal by text": (lambda: nd.anneal(KEY, gaussian(), "HMC"), TypeError, "takes a kernel such as nd.HMC"),
    "bound a function": (lambda: nd.ais_bound(KEY, print), TypeError, "takes a density.*nd.as_density"),
    "bound by text": (lambda: nd.ais_bound(KEY, gaussian(), "HMC"), TypeError, "takes a kernel such as nd.HMC"),
    "a mesh of text": (lambda: nd.anneal(jax.random.key(0), gaussian(), mesh="cpu"), TypeError, "jax.sharding.Mesh"),
    "no algorithm": (lambda: nd.BlackJAX("barker"), TypeError, "such as blackjax.barker"),
    "no function": (lambda: nd.as_density(0.0, (2,)), TypeError, "takes a function"),
    "no model": (lambda: nd.AnnealedMCMC(gaussian()), TypeError, "must be a NumPyro model"),
    "no kernel": (lambda: nd.AnnealedMCMC(print, "HMC"), TypeError, "must be a kernel such as nd.HMC"),
    "no model for NumPyro": (lambda: nd.AnnealedKernel(None), TypeError, "must be a NumPyro model"),
    "no kernel for NumPyro": (lambda: nd.AnnealedKernel(print, nd.Reverse()), TypeError, "must be a kernel"),
    "save a mixture": (lambda: nd.save(gaussian(), "x"), TypeError, "only trained leaves"),
    "recalibrate a mixture": (lambda: nd.recalibrate(KEY, gaussian()), TypeError, "takes a trained energy"),
    "summarise a number": (lambda: summary(1.0), TypeError, "takes the result of nd.anneal"),
    "a tree of a number": (lambda: to_datatree(1.0), TypeError, "takes the result of nd.anneal"),
    "results before a run": (lambda: nd.AnnealedMCMC(print).log_evidence, RuntimeError, "Call run"),
    "a pilot before a run": (lambda: nd.AnnealedKernel(print).pilot, RuntimeError, "Run the MCMC first"),
    "draws of an energy": (
        lambda: nd.DiffusionPrior(network()).sample(np.zeros(2, np.uint32)), NotImplementedError, "sampler=run"),
    "moments of a product": (
        lambda: nd.DiffusionPrior(gaussian() * gaussian(name="h")).mean, NotImplementedError, "Estimate them"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_both_ours_and_the_builtin(what):
    call, builtin, words = WRONG[what]
    with pytest.raises(DiffusionError, match=words) as caught:
        call()
    assert isinstance(caught.value, builtin)
