"""Plots show the numbers they are given, and refuse what they cannot show."""

import builtins
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

from numpyro_diffusion.annealing.kernels import HMC  # noqa: E402
from numpyro_diffusion.annealing.reverse import Reverse  # noqa: E402
from numpyro_diffusion.density.exact import GaussianMixture, UniformBox  # noqa: E402
from numpyro_diffusion.diagnose import plots  # noqa: E402
from numpyro_diffusion.diagnose.result import AnnealedRun, Bound  # noqa: E402
from numpyro_diffusion.errors import MissingLibraryError, ParameterError, ShapeError  # noqa: E402

CHAINS, LEVELS = 64, 9
NORMAL = GaussianMixture(np.zeros((1, 2)), np.eye(2)[None], name="normal")


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def make_run(density=NORMAL, kernel=None, **changes):
    """A run that was never run: plots only read it."""
    rng = np.random.default_rng(0)
    levels = density.schedule.levels(LEVELS)
    names = ("ess", "conditional_ess", "acceptance_rate", "step_size", "log_weight_increment_sd")
    stats = {name: rng.uniform(0.3, 0.9, LEVELS) for name in names}
    stats |= {"log_weight_increment": rng.normal(size=LEVELS), "resampled": np.arange(LEVELS) % 4 == 3}
    fields = {
        "samples": jnp.asarray(rng.normal(size=(CHAINS, *density.event_shape))),
        "log_weights": jnp.zeros(CHAINS),
        "log_evidence": 0.0,
        "log_evidence_error": 0.0,
        "levels": levels,
        "stats": stats,
        "history": {"acceptance_rate": rng.uniform(size=(LEVELS, CHAINS))},
        "density": density,
        "kernel": kernel or HMC(),
        "is_weighted": True,
        "num_steps": 2,
        "evaluations_per_chain": LEVELS * 7,
    }
    return AnnealedRun(**(fields | changes))


def points(ax):
    """The scattered points: contours are collections without offsets."""
    return np.asarray(ax.collections[-1].get_offsets())


def num_contour_sets(ax):
    return sum(isinstance(c, matplotlib.contour.ContourSet) for c in ax.collections)


def test_samples_over_contours():
    run = make_run()
    ax = plots.plot_samples(run, title="normal")
    np.testing.assert_allclose(points(ax), run.samples, rtol=1e-6)
    assert num_contour_sets(ax) == 2 and ax.get_aspect() == 1.0 and ax.get_title() == "normal"


def test_long_titles_are_no_wider_than_their_axes():
    figure, axes = plt.subplots(1, 3, figsize=(9, 3), layout="constrained")
    long = "samples of large_box / (0.99 * small_box + 0.01 * large_box) ** 0.5 by HMC, $t = 0.03$"
    for ax in axes:
        plots.plot_samples(np.random.default_rng(0).normal(size=(50, 2)), ax=ax, title=long)
    plots.image_grid(np.zeros((4, 8, 8)), ax=axes[2], title=long)
    figure.canvas.draw()
    boxes = [ax.title.get_window_extent() for ax in axes]
    assert all(a.x1 < b.x0 for a, b in zip(boxes[:-1], boxes[1:], strict=True))
    assert all(box.y1 <= figure.bbox.y1 for box in boxes) and "$t = 0.03$" in axes[0].get_title()


def test_contours_enclose_the_stated_mass():
    ax = plots.plot_samples(make_run(), limits=((-5, 5), (-5, 5)), grid_size=200)
    contours = ax.collections[0]
    # Of a standard normal in the plane the region of mass m has density above (1 - m) of the peak's.
    np.testing.assert_allclose(contours.levels[:-1], 1 - np.array(plots.MASSES), rtol=0.05)


def test_a_plateau_has_one_contour():
    ax = plots.plot_samples(make_run(UniformBox([-1, -1], [1, 1])), grid_size=40)
    assert len(ax.collections[0].levels) == 2


def test_bare_points_have_no_contours_and_are_thinned():
    ax = plots.plot_samples(np.random.default_rng(0).normal(size=(1000, 2)), max_points=100)
    assert num_contour_sets(ax) == 0 and len(points(ax)) == 100


def test_a_given_density_and_axes():
    _, ax = plt.subplots()
    assert plots.plot_samples(np.zeros((3, 2)) + [[0], [1], [2]], NORMAL, 0.5, ax=ax, grid_size=20) is ax
    assert num_contour_sets(ax) == 2


def test_a_score_only_density_has_no_contours():
    density = SimpleNamespace(event_shape=(2,), has_log_density=False)
    assert num_contour_sets(plots.plot_samples(np.eye(2), density)) == 0


def test_unequal_weights_draw_in_proportion():
    log_weights = jnp.full(CHAINS, -jnp.inf).at[0].set(0.0).at[1].set(jnp.log(3.0))
    run = make_run(log_weights=log_weights)
    drawn = points(plots.plot_samples(run, contours=False))
    for i, count in ((0, CHAINS // 4), (1, 3 * CHAINS // 4)):
        assert np.sum(np.all(np.isclose(drawn, run.samples[i]), axis=1)) == count


def test_samples_must_be_planar_and_finite():
    with pytest.raises(ShapeError, match=r"points \[N, 2\]; got shape \(5, 3\)"):
        plots.plot_samples(np.zeros((5, 3)))
    with pytest.raises(ShapeError, match=r"got shape \(5, 1\). Of one coordinate draw a histogram"):
        plots.plot_samples(np.zeros((5, 1)))
    with pytest.raises(ShapeError, match=r"event shape \(2,\); got \(3,\)"):
        plots.plot_samples(np.zeros((5, 2)), SimpleNamespace(event_shape=(3,)))
    with pytest.raises(ParameterError, match="finite samples; got none"):
        plots.plot_samples(np.full((5, 2), np.nan))


def test_annealing_panels_show_the_statistics():
    run = make_run()
    figure = plots.plot_annealing(run)
    acceptance, step, ess, weight = figure.axes
    shown = [acceptance.lines[0], step.lines[0], ess.lines[0], ess.lines[1], weight.lines[0]]
    names = ["acceptance_rate", "step_size", "ess", "conditional_ess", "log_weight_increment"]
    for line, name in zip(shown, names, strict=True):
        np.testing.assert_array_equal(line.get_ydata(), run.stats[name])
    assert step.get_yscale() == "log" and "target 0.70" in acceptance.get_legend_handles_labels()[1]
    assert len(points(ess)) == np.sum(run.stats["resampled"])


def test_noise_runs_from_left_to_right_and_zero_has_its_place():
    run = make_run()
    ax = plots.plot_annealing(run).axes[2]  # The upper panels share its axis and hide the labels.
    x = ax.lines[0].get_xdata()
    ratio = run.density.schedule.noise_to_signal(run.levels)
    np.testing.assert_allclose(x, ratio, rtol=1e-5)
    places = ax.transData.transform(np.stack([x, np.ones(len(x))], axis=1))[:, 0]
    assert x[-1] == 0 and np.all(np.diff(places) > 0)
    np.testing.assert_allclose(np.diff(places[:-1]), places[1] - places[0], rtol=0.05)
    left, right = ax.get_xlim()
    assert left > x[0] and right < x[-1]
    ticks = [tick for tick in ax.get_xticks() if right <= tick <= left]
    assert 0 in ticks and 100 in ticks


def test_given_step_sizes_have_no_target():
    ax = plots.plot_annealing(make_run(kernel=HMC(step_size=0.1), history=None)).axes[0]
    assert ax.get_legend_handles_labels()[1] == ["mean"]


def test_reverse_diffusion_has_nothing_to_plot_by_level():
    with pytest.raises(ParameterError, match="reverse diffusion has none"):
        plots.plot_annealing(make_run(kernel=Reverse(), stats={}))


def bound(lower, upper=np.nan):
    kind = "ais" if np.isnan(upper) else "bdmc"
    return Bound(kind, lower, 0.02, upper, 0.01, {"forward": np.zeros(3)}, np.linspace(1, 0, 5))


def test_bounds_and_truth():
    ax = plots.plot_bounds([bound(-1.2, -1.0), bound(-1.4)], truth=-1.1)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["BDMC\n5 levels", "AIS\n5 levels"]
    lower, upper = (container[0].get_xdata() for container in ax.containers)
    np.testing.assert_array_equal(lower, [-1.2, -1.4])
    np.testing.assert_array_equal(upper, [-1.0, np.nan])
    assert sorted(t.get_text() for t in ax.get_legend().get_texts()) == ["lower bound", "truth", "upper bound"]
    assert ax.lines[0].get_xdata()[0] == -1.1


def test_one_bound_and_labelled_bounds():
    assert len(plots.plot_bounds(bound(0.0)).containers) == 1
    labels = [
        t.get_text() for t in plots.plot_bounds({"short": bound(0.0, 1.0), "long": bound(0.4, 0.5)}).get_yticklabels()
    ]
    assert labels == ["short", "long"]
    with pytest.raises(ParameterError, match="at least one bound"):
        plots.plot_bounds([])


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    original = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingLibraryError, match=r"numpyro-diffusion\[plots\]"):
        plots.plot_samples(np.zeros((3, 2)))
