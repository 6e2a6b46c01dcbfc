"""Coverage of intervals by nominal level."""

import numpy as np
import pytest

import numpyro_diffusion as nd
from numpyro_diffusion.diagnose.sbc_result import SBCResult
from numpyro_diffusion.errors import ParameterError, ShapeError

RNG = np.random.default_rng(0)
ERRORS = RNG.uniform(0.5, 2.0, 4000)


def test_right_errors_cover_as_often_as_they_say():
    found = nd.coverage(3.0 + ERRORS * RNG.normal(size=4000), ERRORS, 3.0)
    assert found.count == 4000
    sd = np.sqrt(found.levels * (1 - found.levels) / 4000)
    assert np.all(np.abs(found.covered["estimate"] - found.levels) < 5 * sd)
    assert np.all((found.lower < found.levels) & (found.levels < found.upper))
    np.testing.assert_allclose(found.upper - found.lower, 3.92 * sd, rtol=0.05)


def test_small_errors_cover_less():
    found = nd.coverage(2 * RNG.normal(size=4000), np.ones(4000), np.zeros(4000), levels=[0.6827, 0.9545])
    np.testing.assert_allclose(found.covered["estimate"], [0.383, 0.683], atol=0.04)


def test_infinite_errors_cover_and_infinite_estimates_do_not():
    found = nd.coverage([5.0, 5.0, np.inf, -np.inf, 1.0], [np.inf, 0.0, 1.0, np.inf, 0.0], 1.0, levels=[0.9])
    assert found.covered["estimate"] == [0.4]


def test_ranks_are_central_intervals():
    ranks = np.linspace(0, 1, 102)[1:-1]
    zeros = np.zeros(100)
    result = SBCResult(
        {"a": ranks, "b": np.stack([ranks, ranks**2], 1)}, {}, zeros, zeros, zeros > 0, zeros
    )  # fmt: skip
    found = nd.coverage(result, levels=[0.5, 0.9])
    np.testing.assert_allclose(found.covered["a"], [0.5, 0.9], atol=0.02)
    assert found.covered["b"].shape == (2,) and found.count == 100
    with pytest.raises(ParameterError, match="holds the truth itself"):
        nd.coverage(result, ERRORS)


def test_shown(capsys):
    found = nd.coverage(RNG.normal(size=200), np.ones(200), 0.0)
    found.print_summary()
    printed = capsys.readouterr().out
    assert "nominal" in printed and "200 simulations" in printed
    pytest.importorskip("matplotlib").use("Agg")
    assert len(nd.plots.plot_coverage(found).lines) == 2
    labels = [text.get_text() for text in nd.plots.plot_coverage({"HMC": found, "ULA": found}).get_legend().texts]
    assert labels == ["HMC", "ULA"]
    with pytest.raises(ParameterError, match="what nd.coverage returns"):
        nd.plots.plot_coverage([found])


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ((np.zeros(3),), ParameterError, "need errors and the truth"),
        ((np.zeros(3), np.ones(2), 0.0), ShapeError, "must be"),
        ((np.zeros((3, 2)), np.ones((3, 2)), 0.0), ShapeError, "must be"),
        (([], [], 0.0), ShapeError, "must be"),
        (
            ([1.0, 2.0], [1.0, -1.0], 0.0),
            ParameterError,
            r">= 0.*got -1.0 in simulation 1\. .*infinity",
        ),
        (([1.0, 2.0], [np.nan, 1.0], 0.0), ParameterError, "errors must be .* got nan in simulation 0"),
        (([1.0, np.nan], [1.0, 1.0], 0.0), ParameterError, "estimates must not be NaN; got nan in simulation 1"),
        ((np.ma.array([1.0, 2.0], mask=[False, True]), [1.0, 1.0], 0.0), ShapeError, "estimates must be real.*masked"),
        (([1.0, 2.0j], [1.0, 1.0], 0.0), ShapeError, "estimates must be real numbers"),
        (([1.0, 2.0], [1.0, 1.0], np.nan), ParameterError, "truth must be finite; got nan. Leave"),
        (([1.0, 2.0], [1.0, 1.0], [0.0, np.inf]), ParameterError, "truth must be finite; got inf in simulation 1"),
    ],
)
def test_refuses(arguments, error, match):
    with pytest.raises(error, match=match):
        nd.coverage(*arguments)
    with pytest.raises(ParameterError, match="levels must lie in"):
        nd.coverage(np.zeros(3), np.ones(3), 0.0, levels=[1.0])
    np.testing.assert_allclose(nd.coverage(np.zeros(3), np.ones(3), 0.0, levels=0.9).covered["estimate"], [1.0])
