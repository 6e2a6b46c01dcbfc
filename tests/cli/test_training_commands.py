"""The commands `train` and `distil` when Ctrl-C ends them: what is written, what its card says, and how they end."""

import numpy as np
import pytest
from command import fails, invoke
from densities import network

import numpyro_diffusion as nd
from numpyro_diffusion.disk import checkpoint
from numpyro_diffusion.errors import InterruptWarning, warn


@pytest.fixture
def command(tmp_path, monkeypatch, request):
    """A command whose training is interrupted after 3 of 9 steps, and the file it writes."""

    def interrupted(*args, **kwargs):
        warn("something else")
        warn(InterruptWarning("interrupted", 3))
        return network("l2")

    monkeypatch.setattr(nd, "fit", interrupted)
    monkeypatch.setattr(nd, "distil", interrupted)
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((50, 2)))
    nd.save(network("score"), tmp_path / "s.safetensors")
    model = ["--model", tmp_path / "s.safetensors"] if request.param == "distil" else []
    output = tmp_path / "out.safetensors"
    return [request.param, *model, "--data", tmp_path / "x.npy", "--output", output, "--steps", 9], output


COMMANDS = pytest.mark.parametrize("command", ["train", "distil"], indirect=True)


@COMMANDS
def test_without_a_checkpoint_what_there_is_is_kept_and_says_so(command):
    arguments, output = command
    result = invoke(*arguments)
    assert result.exit_code == 1 and "Warning: something else" in result.stderr
    last = result.stderr.splitlines()[-1]
    assert "interrupted after step 3 of 9" in last and "With --checkpoint FILE" in last
    assert checkpoint.read(output, kind="density")[1]["card"]["num_steps"] == 3


@COMMANDS
def test_with_a_checkpoint_the_same_command_goes_on(command, tmp_path, monkeypatch):
    arguments, output = command
    arguments += ["--checkpoint", tmp_path / "state"]
    result = invoke(*arguments)
    assert result.exit_code == 1 and "The same command goes on." in result.stderr and not output.exists()
    for name in ("fit", "distil"):
        monkeypatch.setattr(nd, name, lambda *args, **kwargs: network("l2"))
    assert invoke(*arguments).exit_code == 0
    assert checkpoint.read(output, kind="density")[1]["card"]["num_steps"] == 9


def test_the_home_folder_and_the_kind_of_file(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    nd.save(network("l2"), "~/m.safetensors")
    assert (tmp_path / "m.safetensors").exists() and nd.load("~/m.safetensors").event_shape == (2,)
    (tmp_path / "m").write_bytes((tmp_path / "m.safetensors").read_bytes())
    assert "name one file" in fails("sample", "--model", "~/m", "--output", "~/m", "--force")
    result = invoke("train", "--data", "~/x.npy", "--output", "~/m.npy")
    assert result.exit_code == 2 and "must end in .safetensors" in result.stderr
    np.save(tmp_path / "x.npy", np.zeros((20, 2)))
    assert "is an .npy file" in fails("sample", "--model", "~/x.npy", "--output", tmp_path / "s.npy")
    both = ["--score", "--uncalibrated", "--output", tmp_path / "t.safetensors"]
    assert "Drop it, or --score" in fails("train", "--data", "~/x.npy", *both)
    assert "Did you mean ring?" in fails("sample", "--model", "rnig", "--output", tmp_path / "s.npy")


def test_what_has_several_runs_to_do_ends_at_the_first_interrupt(monkeypatch):
    runs = []
    monkeypatch.setattr(nd, "anneal", lambda *args, **kwargs: runs.append(warn(InterruptWarning("interrupted", 1))))
    assert fails("bench", "--model", "ring") == "Error: interrupted." and not runs
