"""What the operators of densities take, and what they refuse: typed, with rule, value and remedy."""

import fractions

import jax.numpy as jnp
import numpy as np
import pytest
from densities import function, gaussian, network

import numpyro_diffusion as nd
from numpyro_diffusion.errors import ArgumentTypeError, DiffusionError, DivisionByZeroError, ParameterError

P, Q = gaussian(name="p"), gaussian((1.0, 0.0), name="q")

OPERATORS = {
    "number * p": lambda v: v * P,
    "p * number": lambda v: P * v,
    "p / number": lambda v: P / v,
    "number / p": lambda v: v / P,
    "p ** number": lambda v: P**v,
}
TWO = [2, 2.0, np.float64(2), np.float32(2), np.int32(2), jnp.asarray(2.0), jnp.asarray(2), np.array(2.0),
       fractions.Fraction(2)]  # fmt: skip
PRINTED = ["2 * p", "2 * p", "0.5 * p", "2 * 1 / p", "p ** 2"]


@pytest.mark.parametrize("two", TWO, ids=lambda v: f"{type(v).__name__} {getattr(v, 'dtype', '')}")
def test_every_kind_of_number_is_one(two):
    assert [repr(operator(two)) for operator in OPERATORS.values()] == PRINTED
    assert repr(nd.mixture(P, Q, weights=[two, 6])) == "(0.25 * p + 0.75 * q)"


NO_NUMBERS = {
    "an array": (np.array([1.0, 2.0]), r"got an array of shape \(2,\)"),
    "an array of one": (np.array([1.0]), r"got an array of shape \(1,\)"),
    "an array of JAX": (jnp.array([1.0, 2.0]), r"got an array of shape \(2,\)"),
    "an array of objects": (np.array([1, None], dtype=object), r"got an array of shape \(2,\)"),
    "a list": ([1.0, 2.0], r"got \[1.0, 2.0\]"),
    "a tuple": ((1.0,), r"got \(1.0,\)"),
    "text": ("2", "got '2'"),
    "bytes": (b"2", "got b'2'"),
    "complex": (1j, "got 1j"),
    "complex of NumPy": (np.complex64(1), r"got \(1\+0j\)"),
    "complex of JAX": (jnp.asarray(1j), "got 1j"),
    "boolean": (True, "got the boolean True"),
    "boolean of NumPy": (np.bool_(True), "got the boolean True"),
    "None": (None, "got None"),
}
NOT_FINITE = {"NaN": np.nan, "infinity": np.inf, "NaN of NumPy": np.float32(np.nan), "too large": 10**400}


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("what", NO_NUMBERS)
def test_what_is_no_number(operator, what):
    value, words = NO_NUMBERS[what]
    with pytest.raises(ArgumentTypeError, match=f"must be one real number; {words}.*(p|0.3 . p)") as error:
        OPERATORS[operator](value)
    assert isinstance(error.value, TypeError) and isinstance(error.value, ParameterError)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("what", NOT_FINITE)
def test_what_is_not_finite(operator, what):
    with pytest.raises(ParameterError, match=r"must be finite; got (nan|inf|1000).*(0.3 . p|p \*\* 0.5)"):
        OPERATORS[operator](NOT_FINITE[what])


REFUSED = {
    "zero times": (lambda: 0 * P, ParameterError, r"positive; got 0.*p / q \*\* alpha"),
    "a negative mass": (lambda: P * -1.5, ParameterError, r"positive; got -1.5"),
    "a negative divisor": (lambda: P / np.float32(-2), ParameterError, r"positive; got -2"),
    "over zero": (lambda: P / 0, DivisionByZeroError, r"divides a density must be positive; got 0.*p / q"),
    "over zero of JAX": (lambda: P / jnp.asarray(0), ZeroDivisionError, "got 0"),
    "zero over": (lambda: 0 / P, ParameterError, "positive; got 0"),
    "minus": (lambda: -P, ArgumentTypeError, r"positive; got -p.*1 / p"),
    "difference": (lambda: P - Q, TypeError, r"negative; got a density minus.*p / q \*\* alpha"),
    "number less": (lambda: P - 1, ArgumentTypeError, "minus int"),
    "from a number": (lambda: 1 - P, ArgumentTypeError, "int minus a density"),
    "from an array": (lambda: np.ones(2) - P, ArgumentTypeError, "ndarray minus a density"),
    "plus a number": (lambda: P + 1, ArgumentTypeError, r"adds to a density.*got int.*nd.mixture"),
    "plus an array": (lambda: P + jnp.ones(2), TypeError, "adds to a density"),
    "a number plus": (lambda: 1 + P, ArgumentTypeError, r"adds to a density.*got int"),
    "Python's sum": (lambda: sum([P, Q]), TypeError, r"nd.mixture\(p, q, ...\) instead of sum"),  # pyright: ignore
    "an array plus": (lambda: np.ones(2) + P, ArgumentTypeError, "got ndarray"),
    "a density as exponent": (lambda: P**Q, ArgumentTypeError, r"real number; got q.*p \*\* 0.5"),
    "a number to a density": (lambda: 2**P, ArgumentTypeError, r"got int to the power of the density p"),
    "an array to a density": (lambda: np.ones(2) ** P, ArgumentTypeError, "got ndarray to the power"),
    "text among weights": (lambda: nd.mixture(P, Q, weights=["1", "2"]), ArgumentTypeError, "2 real numbers; got"),
    "None among weights": (lambda: nd.mixture(P, Q, weights=[1, None]), ArgumentTypeError, r"got \[1, None\]"),
    "complex exponents": (lambda: nd.product(P, Q, exponents=[1, 1j]), ArgumentTypeError, r"got \[1, 1j\]"),
    "a temperature of text": (lambda: nd.temper(P, "2"), ArgumentTypeError, "temperature must be one real number"),
    "a boolean scale": (lambda: nd.guided(P, Q, True), ArgumentTypeError, "scale must be one real number"),
    "a vector for alpha": (lambda: nd.contrast(P, Q, alpha=np.ones(2)), ArgumentTypeError, r"alpha must.*\(2,\)"),
    "a number among densities": (lambda: nd.product(P, 2.0), ArgumentTypeError, "takes densities; got float"),  # pyright: ignore
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_refused(what):
    call, exception, words = REFUSED[what]
    with pytest.raises(exception, match=words) as error:
        call()
    assert isinstance(error.value, DiffusionError)


def test_reprs_are_short():
    base = nd.MixtureBase.of(np.zeros((3, 2)), np.stack([np.eye(2)] * 3), np.ones((1, 3)))
    wide = network(condition_size=2).given([1.0, 0.5])
    densities = [P, function(), network(), wide, nd.exact.GaussianMixture([[0.0]], [[[1.0]]]), P * Q / (P + Q), base]
    for density in (*densities, nd.DiffusionPrior(P * Q), nd.DiffusionPrior(P).at(0.5)):
        assert len(repr(density)) < 80 and "0x" not in repr(density) and "Array" not in repr(density)
    assert repr(nd.DiffusionPrior(P * Q)) == "DiffusionPrior(p * q)"
    assert repr(nd.DiffusionPrior(P).at(0.5)) == "DiffusionPrior(p, t=0.5)"
    assert repr(base) == "MixtureBase(3 components in 2 dimensions, 0 classes)"
