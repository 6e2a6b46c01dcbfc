"""The README's Python runs as it stands, its command lines parse, and what it names exists."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import numpyro_diffusion as nd
from numpyro_diffusion.cli import main as cli

README = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("index", range(len(blocks("python"))))
def test_python_runs(index, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(blocks("python")[index], f"README.md, block {index}", "exec"), names)
    if index == 0:
        assert names["samples"].shape == (500, 2)
        assert abs(names["run"].log_evidence - -0.471) < 0.2
    if "mine" in names:  # a Gaussian at the centre of a ring leaves the ring
        radius = np.linalg.norm(names["run"].samples, axis=1)
        assert abs(radius.mean() - 0.5) < 0.02 and radius.std() < 0.06


def test_a_model_from_elsewhere_takes_eight_lines():
    (block,) = (block for block in blocks("python") if "nd.from_noise_prediction" in block)
    assert len([line for line in block.splitlines() if line]) <= 8


def test_there_is_an_example():
    assert len(blocks("python")) >= 1


def test_names_exist():
    for name in sorted(set(re.findall(r"\bnd\.(\w+(?:\.\w+)?)", README))):
        thing = nd
        for part in name.split("."):
            assert hasattr(thing, part), f"README names nd.{name}"
            thing = getattr(thing, part)


@pytest.mark.parametrize("line", [line for block in blocks("bash") for line in block.splitlines() if line])
def test_command_lines_parse(line):
    program, command, *arguments = shlex.split(line)
    assert program == "numpyro-diffusion"
    subcommand = cli.main.commands[command]
    # Parses everything, and runs nothing.
    subcommand.make_context(command, arguments)
    assert CliRunner().invoke(cli.main, [command, "--help"]).exit_code == 0


def test_make_targets_exist():
    makefile = (Path(__file__).resolve().parent.parent / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"\bmake ([a-z-]+)", README)) - {"demo_output"}:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
