"""Python of the README, and of the pages that go on from it, runs as it stands; command lines parse, names exist."""

import re
import shlex
import tomllib
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import numpyro_diffusion as nd
from numpyro_diffusion.cli import main as cli
from numpyro_diffusion.diagnose.findings import findings

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
#: What the README was before it had two screens, and its neighbours.
PAGES = ("how_to_compose", "how_to_model", "how_to_elsewhere", "how_to_train", "figures", "release")
TEXT = "\n".join([README, *((ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8") for page in PAGES)])


def blocks(language, text=TEXT):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("index", range(len(blocks("python"))))
def test_python_runs(index, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(blocks("python")[index], f"block {index}", "exec"), names)
    if index == 0:
        assert names["samples"].shape == (500, 2)
        assert abs(names["run"].log_evidence - -0.471) < 0.2
    if "mine" in names:  # a Gaussian at the centre of a ring leaves the ring
        radius = np.linalg.norm(names["run"].samples, axis=1)
        assert abs(radius.mean() - 0.5) < 0.02 and radius.std() < 0.06
        # By quadrature; and a reader sees a run that nothing speaks against.
        assert abs(names["run"].log_evidence - -1.964) < 5 * names["run"].log_evidence_error < 0.5
        assert findings(names["run"]) == []


def test_a_model_from_elsewhere_takes_eight_lines():
    (block,) = (block for block in blocks("python") if "nd.from_noise_prediction" in block)
    assert len([line for line in block.splitlines() if line]) <= 8


def test_there_is_an_example():
    (block,) = blocks("python", README)
    assert block == blocks("python")[0]
    assert len([line for line in block.splitlines() if line]) <= 12


def test_two_screens():
    assert len(README.splitlines()) <= 100
    assert (ROOT / "docs" / "readme.png").stat().st_size <= 300_000


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", *(f"docs/{page}.md" for page in PAGES)])
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", (ROOT / page).read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (ROOT / page).parent.joinpath(link).exists()]
    assert missing == []


def test_extras_are_those_of_the_project():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for extra, library in nd.errors.EXTRAS.items():
        assert [re.match(r"\w+", line)[0] for line in extras[extra]] == [library]
        assert f"`{extra}` ({library})" in README


def test_the_citation_is_of_this_version():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"version: {nd.__version__}\n" in citation
    assert {line.partition(":")[0] for line in citation.splitlines() if re.match(r"\w", line)} >= {
        "cff-version", "message", "title", "authors", "license",
    }  # fmt: skip


def test_names_exist():
    for name in sorted(set(re.findall(r"\bnd\.(\w+(?:\.\w+)?)", TEXT))):
        thing = nd
        for part in name.split("."):
            assert hasattr(thing, part), f"a page names nd.{name}"
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
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    texts = TEXT + (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for target in re.findall(r"(?:^ +|`)make ([a-z-]+)", texts, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
