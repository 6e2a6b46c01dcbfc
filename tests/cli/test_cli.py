"""The command line does what it says, and answers bad input with one line and exit code 1."""

import subprocess
import sys

import numpy as np
import pytest
from command import fails, invoke

import numpyro_diffusion as nd
from numpyro_diffusion.annealing import advance as onward
from numpyro_diffusion.cli import cubes as demo_cubes
from numpyro_diffusion.cli import demo, models
from numpyro_diffusion.datasets import planar, targets
from numpyro_diffusion.disk import arrays as files
from numpyro_diffusion.errors import ParameterError, ShapeError

TINY = ["--steps", "4", "--batch-size", "16", "--width", "8"]
FEW = ["--num-chains", "20", "--levels", "4", "--steps", "1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """points.npy, an energy model a.safetensors, a score model s.safetensors."""
    path = tmp_path_factory.mktemp("cli")
    np.save(path / "points.npy", np.random.default_rng(0).standard_normal((50, 2)))
    for name, flags in {"a": [], "s": ["--score"]}.items():
        result = invoke("train", "--data", path / "points.npy", "--output", path / f"{name}.safetensors", *TINY, *flags)
        assert result.exit_code == 0, result.output
    return path


def test_help_of_every_command():
    assert invoke("--help").exit_code == 0
    for name in ("demo", "cubes", "tapestry", "scenes", "flows", "sculpt", "train", "distil", "sample", "bench"):
        assert name in invoke("--help").stdout
        assert "--seed" in invoke(name, "--help").stdout
    assert nd.__version__ in invoke("--version").stdout


@pytest.mark.slow
def test_a_trained_file_is_the_density(folder):
    density = nd.load(folder / "a.safetensors")
    assert repr(density) == "a" and density.event_shape == (2,) and density.is_calibrated
    assert not nd.load(folder / "s.safetensors").has_log_density


@pytest.mark.slow
def test_training_resumes_to_the_same_weights(folder, tmp_path):
    for _ in range(2):
        result = invoke(
            "train", "--data", folder / "points.npy", "--output", tmp_path / "a.safetensors", *TINY,
            "--checkpoint", tmp_path / "state", "--force",
        )  # fmt: skip
        assert result.exit_code == 0, result.output
    x = np.zeros((3, 2)) + np.arange(3)[:, None]
    again, before = nd.load(tmp_path / "a.safetensors"), nd.load(folder / "a.safetensors")
    assert np.asarray(again.log_prob(x)) == pytest.approx(np.asarray(before.log_prob(x)), rel=1e-5)


def test_samples_are_written_and_repeat_with_the_seed(folder, tmp_path):
    model, outputs = folder / "a.safetensors", [tmp_path / f"{i}.npy" for i in range(3)]
    for output, seed in zip(outputs, (1, 1, 2), strict=True):
        result = invoke("sample", "--model", model, "--output", output, *FEW, "--seed", seed)
        assert result.exit_code == 0, result.output
        assert "log evidence" in result.stdout
    first, same, other = (files.read_array(output) for output in outputs)
    assert first.shape == (20, 2)
    assert np.array_equal(first, same) and not np.array_equal(first, other)
    assert not [p for p in tmp_path.iterdir() if p.suffix == ".tmp"]


def test_an_interrupted_run_goes_on(folder, tmp_path, monkeypatch):
    output, original, calls = tmp_path / "x.npy", onward.advance, []
    arguments = ["sample", "--model", folder / "a.safetensors", *FEW, "--checkpoint", tmp_path / "state"]

    def advance(*args, **kwargs):
        calls.append(None)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(onward, "advance", advance)
        result = invoke(*arguments, "--output", output)
    assert result.exit_code == 1 and "The same command goes on" in result.output
    assert not output.exists()
    assert invoke(*arguments, "--output", output).exit_code == 0
    whole = tmp_path / "whole.npy"
    assert invoke(*arguments[:-2], "--output", whole).exit_code == 0
    assert np.array_equal(files.read_array(output), files.read_array(whole))


def test_an_existing_file_is_replaced_only_by_force(folder, tmp_path):
    output = tmp_path / "x.npy"
    output.write_bytes(b"precious")
    arguments = ["sample", "--model", folder / "a.safetensors", "--output", output, "--kernel", "reverse", *FEW]
    assert "--force" in fails(*arguments)
    assert output.read_bytes() == b"precious"
    assert invoke(*arguments, "--force").exit_code == 0
    assert files.read_array(output).shape == (20, 2)


@pytest.mark.slow
def test_bench_weighs_scores_too(folder):
    result = invoke("bench", "--model", folder / "s.safetensors", *FEW)
    assert result.exit_code == 0, result.output
    rows = {line.split()[0]: line for line in result.stdout.splitlines()[3:]}
    assert list(rows) == ["hmc", "mala", "uhmc", "ula", "reverse"]
    assert all("+-" in rows[name] for name in ("hmc", "mala", "uhmc", "ula"))
    assert "+-" not in rows["reverse"] and " 3 " in rows["reverse"]


@pytest.mark.slow
def test_bench_of_scores_that_only_reverse_diffusion_can_mix(folder):
    models = "--model", folder / "s.safetensors", "--model", folder / "a.safetensors"
    result = invoke("bench", *models, "--compose", "mixture", *FEW)
    assert result.exit_code == 0, result.output
    rows = {line.split()[0]: line for line in result.stdout.splitlines() if line}
    assert "nd.Reverse()" in rows["hmc"] and "+-" in rows["reverse"]


@pytest.mark.slow
def test_bench_of_a_composition(folder):
    result = invoke(
        "bench", "--model", folder / "a.safetensors", "--model", folder / "a.safetensors", "--compose", "product", *FEW
    )
    assert result.exit_code == 0, result.output
    assert result.stdout.count("+-") == 4


def box(scale):
    return nd.exact.UniformBox(-scale * np.ones(2), scale * np.ones(2), name=f"box{scale}")


@pytest.mark.parametrize(
    ("operator", "settings", "expected"),
    [
        ("product", ((), None, None), lambda p, q: p * q),
        ("product", ((2.0, 0.5), None, None), lambda p, q: p**2 * q**0.5),
        ("mixture", ((), None, None), lambda p, q: 0.5 * p + 0.5 * q),
        ("mixture", ((1.0, 3.0), None, None), lambda p, q: 0.25 * p + 0.75 * q),
        ("negation", ((), None, None), lambda p, q: p / (0.99 * q + 0.01 * p) ** 0.5),
        ("negation", ((), 0.3, 0.0), lambda p, q: p / q**0.3),
        ("harmonic-mean", ((), None, None), lambda p, q: p * q / (0.5 * p + 0.5 * q)),
        ("contrast", ((), 0.2, None), lambda p, q: p**2 / (0.2 * p + 0.8 * q)),
    ],
)
def test_operators_are_the_algebras(operator, settings, expected):
    p, q, x = box(1), box(2), np.random.default_rng(0).uniform(-1, 1, (5, 2))
    found = models.compose([p, q], operator, *settings).log_prob(x, 0.3)
    assert np.asarray(found) == pytest.approx(np.asarray(expected(p, q).log_prob(x, 0.3)), abs=1e-4)


@pytest.mark.parametrize(
    ("count", "operator", "settings", "message"),
    [
        (2, None, ((), None, None), "--compose product"),
        (1, None, ((1.0,), None, None), "add --compose"),
        (1, "negation", ((), None, None), "two models; got 1"),
        (3, "negation", ((), None, None), "two models; got 3"),
        (2, "negation", ((1.0, 1.0), None, None), "not --weight"),
        (2, "negation", ((), 1.5, None), r"\(0, 1\]"),
        (1, "contrast", ((), None, None), "at least two"),
        (2, "product", ((), 0.5, None), "not --alpha"),
        (2, "mixture", ((), None, 0.5), "no --floor"),
        (2, "mixture", ((1.0, -1.0), None, None), "positive"),
        (2, "mixture", ((1.0,), None, None), "weights"),
    ],
)
def test_operators_refuse_what_does_not_fit(count, operator, settings, message):
    with pytest.raises(ParameterError, match=message):
        models.compose([box(1), box(2), box(3)][:count], operator, *settings)


def save_bytes(path, content):
    path.write_bytes(content)
    return path


def saved(path, array):
    np.save(path, array)
    return path.read_bytes()


BAD_DATA = {
    "text": (lambda p: b"1 2 3\n", "not an .npy file"),
    "empty": (lambda p: b"", "not an .npy file"),
    "pickle": (lambda p: saved(p, np.array([{"a": 1}], dtype=object)), "never unpickled"),
    "cut short": (lambda p: saved(p, np.ones((50, 2)))[:-8], "damaged or cut short"),
    "huge claim": (lambda p: saved(p, np.ones((50, 2))).replace(b"(50, 2), }    ", b"(50000000, 2)}"), "damaged"),
    "complex": (lambda p: saved(p, np.ones((5, 2), complex)), "real numbers"),
    "integers": (lambda p: saved(p, np.ones((5, 2), int)), "floating point"),
    "flat": (lambda p: saved(p, np.ones(5)), "shape"),
    "NaN": (lambda p: saved(p, np.full((5, 2), np.nan)), "finite"),
}


@pytest.mark.parametrize("what", BAD_DATA)
def test_bad_data(what, tmp_path):
    make, message = BAD_DATA[what]
    data = save_bytes(tmp_path / "x.npy", make(tmp_path / "x.npy"))
    assert message in fails("train", "--data", data, "--output", tmp_path / "m.safetensors", *TINY)
    assert not (tmp_path / "m.safetensors").exists()


def test_bad_files_and_folders(folder, tmp_path):
    output, points = tmp_path / "x.npy", folder / "points.npy"
    assert "cannot read" in fails("train", "--data", tmp_path / "none.npy", "--output", tmp_path / "m")
    assert "does not exist" in fails("train", "--data", points, "--output", tmp_path / "none" / "m", *TINY)
    assert "is a folder" in fails("sample", "--model", folder / "a.safetensors", "--output", tmp_path)
    assert "no pretrained density" in fails("sample", "--model", "nothing", "--output", output)
    assert "is an .npy file" in fails("sample", "--model", points, "--output", output)
    model = folder / "a.safetensors"
    assert "step_size must be positive" in fails("sample", "--model", model, "--output", output, "--step-size", -1)


@pytest.mark.slow
def test_scores_are_sampled_as_densities_are(folder, tmp_path):
    result = invoke("sample", "--model", folder / "s.safetensors", "--output", tmp_path / "x.npy", *FEW)
    assert result.exit_code == 0, result.output
    assert np.all(np.isfinite(np.load(tmp_path / "x.npy"))) and "log evidence" in result.stdout


def test_options_out_of_range_are_usage_errors(folder, tmp_path):
    for option in (["--num-chains", "0"], ["--levels", "1"], ["--kernel", "gibbs"], ["--seed", "-1"]):
        result = invoke("sample", "--model", folder / "a.safetensors", "--output", tmp_path / "x.npy", *option)
        assert result.exit_code == 2 and option[0] in result.stderr


def test_read_array_gives_what_was_written(tmp_path):
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    files.write_array(tmp_path / "x.npy", x)
    assert np.array_equal(files.read_array(tmp_path / "x.npy"), x)
    with pytest.raises(ShapeError):
        files.write_array(tmp_path / "t.npy", np.array(["a"]))
        files.read_array(tmp_path / "t.npy")


def test_the_package_runs_as_a_module():
    command = [sys.executable, "-m", "numpyro_diffusion", "--version"]
    assert nd.__version__ in subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
def test_the_demo_runs_on_closed_forms(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "list_pretrained", lambda: list(targets.target("mixture").factors))
    monkeypatch.setattr(demo, "load_pretrained", planar.exact)
    lines = []
    results = demo.run(tmp_path / "new", num_chains=300, echo=lines.append)
    assert [row["sampler"] for row in results["planar"]] == ["truth", "reverse", "annealed"]
    assert abs(results["planar"][2]["log_evidence"]) < 0.5
    assert {p.name for p in (tmp_path / "new").iterdir()} == {"compositions.png", "results.json"}
    assert "-2.17" in "\n".join(lines)


@pytest.mark.slow
@pytest.mark.parametrize("size", ["16", "32"])
def test_cubes_are_drawn_and_judged(tmp_path, monkeypatch, size):
    monkeypatch.setattr(demo_cubes, "LEVELS", 3)
    options = ["--output", tmp_path / "cubes.png", "--num-cubes", 1, "--images", 1, "--size", size]
    result = invoke("cubes", *options)
    assert result.exit_code == 0, result.output
    said = [line.partition(":") for line in result.stdout.splitlines()]
    assert [name for name, *_ in said[:3]] == ["reverse", "verdict before the run", "HMC"]
    assert "of 1 images right" in said[0][2] and "of 1 images right" in said[2][2]
    assert (tmp_path / "cubes.png").read_bytes().startswith(b"\x89PNG")
    assert "exists" in fails("cubes", *options)
