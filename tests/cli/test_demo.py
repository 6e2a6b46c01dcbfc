"""The demonstrations write each result as it is there, and a killed one leaves what it had found."""

import json
import os
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from numpyro_diffusion.classifier import Classifier
from numpyro_diffusion.cli import cubes as demo_cubes
from numpyro_diffusion.cli import demo
from numpyro_diffusion.cli import main as cli
from numpyro_diffusion.datasets import planar, targets
from numpyro_diffusion.errors import ParameterError


def invoke(*arguments):
    return CliRunner().invoke(cli.main, [str(a) for a in arguments])


class Killed(BaseException):
    pass


@pytest.fixture
def closed_forms(monkeypatch):
    """The demonstration on the mixture alone, whose samplers draw from the truth; and what to do before each."""
    before = []

    def anneal(key, density, sampler, *, num_chains, progress_bar):
        for act in before:
            act(sampler)
        samples = targets.target("mixture").sample(num_chains, 3)
        return type("Run", (), {"samples": samples, "log_evidence": 0.1, "evaluations_per_chain": 7})()

    monkeypatch.setattr(demo, "list_pretrained", lambda: list(targets.target("mixture").factors))
    monkeypatch.setattr(demo, "load_pretrained", planar.exact)
    monkeypatch.setattr(demo, "anneal", anneal)
    return before


def found(folder):
    return json.loads((folder / "results.json").read_text())


def test_a_killed_demo_leaves_the_rows_so_far_and_the_next_replaces_them(tmp_path, closed_forms):
    def kill(sampler):
        if sampler is demo.SAMPLERS["annealed"]:
            raise Killed

    closed_forms.append(kill)
    (tmp_path / "compositions.png").write_bytes(b"of an earlier call")
    with pytest.raises(Killed):
        demo.run(tmp_path, num_chains=50, echo=lambda line: None)
    left = found(tmp_path)
    assert [row["sampler"] for row in left["planar"]] == ["truth", "reverse"] and not left["is_complete"]
    assert os.listdir(tmp_path) == ["results.json"]
    closed_forms.clear()
    results = demo.run(tmp_path, num_chains=60, echo=lambda line: None)
    assert found(tmp_path) == json.loads(json.dumps(demo.plain(results)))
    assert results["is_complete"] and results["settings"]["num_chains"] == 60
    assert [row["sampler"] for row in results["planar"]] == ["truth", "reverse", "annealed"]
    assert sorted(os.listdir(tmp_path)) == ["compositions.png", "results.json"]


def test_without_matplotlib_there_are_tables(tmp_path, closed_forms, monkeypatch):
    def picture(*_):
        raise ImportError

    lines = []
    monkeypatch.setattr(demo.pictures, "compositions", picture)
    demo.run(tmp_path, num_chains=50, echo=lines.append)
    assert found(tmp_path)["is_complete"] and "without matplotlib" in lines[-1]


@pytest.mark.parametrize("name", ["results.json", "compositions.png", "digits.png"])
def test_the_demo_replaces_nothing_but_files(tmp_path, closed_forms, name):
    (tmp_path / name).mkdir()
    with pytest.raises(ParameterError, match="is a folder"):
        demo.run(tmp_path, num_chains=50, echo=lambda line: None)
    assert os.listdir(tmp_path) == [name]


@pytest.fixture
def quick_cubes(monkeypatch):
    """Cubes of noise, all judged right; and what to do before each sampler."""
    before = []

    def anneal(key, density, sampler, *, num_chains, **_):
        for act in before:
            act(sampler)
        samples = np.random.default_rng(0).uniform(-1, 1, (num_chains, 16, 16, 3))
        return type("Run", (), {"samples": samples, "evaluations_per_chain": 7})()

    monkeypatch.setattr(demo_cubes, "anneal", anneal)
    monkeypatch.setattr(demo_cubes, "all_present", lambda judge, images, places: np.ones(len(images), bool))
    return before


def test_killed_cubes_leave_the_first_row_and_the_same_command_runs_again(tmp_path, quick_cubes):
    def kill(sampler):
        if isinstance(sampler, demo_cubes.HMC):
            raise KeyboardInterrupt

    quick_cubes.append(kill)
    arguments = ["cubes", "--output", tmp_path / "cubes.png", "--num-cubes", 1, "--images", 2]
    result = invoke(*arguments)
    assert result.exit_code == 1 and "reverse: 100% of 2 images right" in result.stdout
    assert os.listdir(tmp_path) == ["cubes.partial.png"]
    assert (tmp_path / "cubes.partial.png").read_bytes().startswith(b"\x89PNG")
    quick_cubes.clear()
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    assert os.listdir(tmp_path) == ["cubes.png"]


def test_cubes_ask_for_matplotlib_before_they_sample(tmp_path, quick_cubes, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    quick_cubes.append(lambda sampler: pytest.fail("sampled"))
    result = invoke("cubes", "--output", tmp_path / "cubes.png")
    assert result.exit_code == 1 and "pip install" in result.stderr and len(result.stderr.splitlines()) == 1


def test_the_judge_that_ships_is_one():
    assert isinstance(demo_cubes.pretrained_judge(16), Classifier)


@pytest.mark.slow
def test_flows(tmp_path):
    arguments = ["flows", "--output", tmp_path / "flows.png", "--side", 6, "--num-steps", 20]
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    # The weighted paths are right, however short the training.
    (row,) = (line for line in result.output.splitlines() if line.startswith("harmonic mean"))
    routing, _, weighted = map(float, row.split()[2:5])
    assert weighted < 0.03 and weighted < routing
    assert (tmp_path / "flows.png").read_bytes().startswith(b"\x89PNG")
    assert "exists" in invoke(*arguments).output


@pytest.mark.slow
def test_sculpt(tmp_path):
    arguments = ["sculpt", "--output", tmp_path / "tree.png", "--num-chains", 500]
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.output.splitlines() if line.startswith("1, 2")]
    assert len(rows) == 4
    for row in rows:
        found, _, error, exact, regions = row[-5:]
        assert abs(float(found) - float(exact)) < 5 * float(error) < 0.5 and float(regions) < 0.15
    assert (tmp_path / "tree.png").read_bytes().startswith(b"\x89PNG")
    assert "exists" in invoke(*arguments).output
