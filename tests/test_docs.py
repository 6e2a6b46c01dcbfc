"""The documentation: names, code, pictures and figures in its sources, and the scripts that check the built site."""

import importlib.util
import inspect
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

import numpyro_diffusion as nd

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"


def script(name):
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


check_code, check_site = script("check_code"), script("check_site")
PAGES = {name: path for name, path in check_code.pages().items() if name != "README"}
#: Pages that tests of their own run, and look at what they find.
RUN_ELSEWHERE = {"how_to_numpyro", "how_to_pytorch_weights", "how_to_model", "how_to_elsewhere", "how_to_train"}


def code_of(name):
    return check_code.blocks(PAGES[name])


def own(module):
    """Public functions and classes of a namespace, by name; those that check arguments are not for users."""
    listed = getattr(module, "__all__", None)
    return {
        name: thing
        for name, thing in vars(module).items()
        if not name.startswith(("_", "check"))
        and (inspect.isclass(thing) or inspect.isfunction(thing))
        and (name in listed if listed is not None else thing.__module__ == module.__name__)
    }


def public_names():
    """Every public name of the package and of its namespaces, as the reference should have it."""
    top = {n for n, t in vars(nd).items() if not (n.startswith("_") or isinstance(t, types.ModuleType))}
    names = {f"numpyro_diffusion.{name}" for name in top}
    spaces = [nd.classifier, nd.gflownet, nd.gflownet.molecules, nd.handlers, nd.metrics]
    spaces += [getattr(nd.datasets, name) for name in nd.datasets.__all__]
    names |= {f"{space.__name__}.{name}" for space in spaces for name in own(space)}
    names |= {f"numpyro_diffusion.density.exact.{name}" for name in ("GaussianMixture", "UniformBox")}
    names |= {f"numpyro_diffusion.diagnose.plots.{n}" for n in vars(nd.plots) if n.startswith("plot_")}
    errors = {n for n, t in vars(nd.errors).items() if inspect.isclass(t) and issubclass(t, Exception | Warning)}
    return names | {"numpyro_diffusion.diagnose.plots.image_grid", *(f"numpyro_diffusion.errors.{n}" for n in errors)}


def documented():
    """Names of the reference's directives, in order."""
    found = []
    for path in sorted((DOCS / "reference").glob("*.md")):
        module = ""
        for line in path.read_text(encoding="utf-8").splitlines():
            if match := re.match(r"\.\. currentmodule:: (\S+)", line):
                module = match[1]
            if match := re.match(r"\.\. auto(?:function|class|exception):: (\S+)", line):
                found.append(f"{module}.{match[1]}")
    return found


def test_the_reference_has_every_public_name_once():
    found = documented()
    assert len(found) == len(set(found))
    assert public_names() - set(found) == set(), "not in docs/reference"
    # What is documented beyond that are scenes and labels of data sets, targets and such: they must exist.
    for name in set(found) - public_names():
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name


@pytest.mark.parametrize("name", sorted(PAGES))
def test_code_compiles_and_names_exist(name):
    for block in code_of(name):
        compile(block.code, f"{name}, line {block.line}", "exec")
    for path in sorted(set(re.findall(r"\bnd((?:\.\w+)+)", PAGES[name].read_text(encoding="utf-8")))):
        thing = nd
        for part in path.strip(".").split("."):
            if not isinstance(thing, types.ModuleType | type):
                break  # an attribute of what a call returns
            assert hasattr(thing, part), f"{name} names nd{path}"
            thing = getattr(thing, part)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [n for n, p in sorted(PAGES.items()) if n not in RUN_ELSEWHERE and check_code.blocks(p)]
)
def test_code_runs(name, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    assert check_code.run(name, PAGES[name]) == sum(block.runs for block in code_of(name))


def test_pictures_have_alternative_texts():
    for path in PAGES.values():
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"!\[\s*\]\(", text), path
        for block in re.findall(r"```\{(?:image|figure)\}.*?```", text, re.DOTALL):
            assert re.search(r":alt: \S", block), f"{path}: {block}"
        for block in re.findall(r"```\{code-cell\}.*?```", text, re.DOTALL):
            assert "plt." not in block and "plots." not in block or "alt:" in block, f"{path}: {block}"


def test_every_result_stands_on_a_page_once():
    text = "".join(path.read_text(encoding="utf-8") for path in sorted((DOCS / "results").glob("*.md")))
    labels = re.findall(r"^\(result-(\w+)\)=$", text, re.MULTILINE)
    files = [path.stem for path in (ROOT / "benchmarks" / "results").glob("*.json")]
    files = [name for name in files if not name.endswith("_quick") and name != "peers"]
    assert len(labels) == len(set(labels)) and set(files) <= set(labels)
    for picture in re.findall(r"benchmarks/results/(\w+\.png)", text):
        assert (ROOT / "benchmarks" / "results" / picture).is_file()


def test_blocks_are_found_with_their_lines(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# T\n\n```python\nx = 1\n```\n\n```py\nhours()\n```\n\n```{code-cell} ipython3\n---\nmystnb:\n  image:\n"
        "    alt: a\n---\ny = x + 1\n```\n\n```bash\nls\n```\n"
    )
    found = check_code.blocks(page)
    assert [block.runs for block in found] == [True, False, True]
    assert [block.line for block in found] == [4, 8, 12]
    assert found[2].code.strip() == "y = x + 1"
    assert check_code.run("page", page) == 2
    page.write_text("# T\n\n```python\nx = 1\n1 / 0\n```\n")
    with pytest.raises(ZeroDivisionError) as caught:
        check_code.run("page", page)
    assert caught.traceback[-1].lineno + 1 == 5


FINE = '<html><body id="top"><a href="b.html#place">b</a><img src="p.png" alt="a picture"></body></html>'
FAULTS = {
    "a page that is not there": FINE.replace("b.html", "c.html"),
    "a place that is not there": FINE.replace("#place", "#other"),
    "a picture without words": FINE.replace("a picture", " "),
    "a picture that is not there": FINE.replace("p.png", "q.png"),
    "a script from elsewhere": FINE.replace("</body>", '<script src="https://cdn.example/x.js"></script></body>'),
}


@pytest.mark.parametrize("html", [FINE, *FAULTS.values()], ids=["fine", *FAULTS])
def test_faults_of_a_site_are_found(html, tmp_path):
    (tmp_path / "a.html").write_text(html)
    (tmp_path / "b.html").write_text('<p id="place"></p><a href="https://example.org">elsewhere</a>')
    (tmp_path / "p.png").write_bytes(b"")
    faults, counts = check_site.check(tmp_path)
    assert counts["pages"] == 2 and counts["links to other sites"] == 1
    assert len(faults) == (0 if html == FINE else 1)


@pytest.mark.slow
def test_the_site_builds(tmp_path):
    for name in ("furo", "latex2mathml", "myst_nb", "sphinx_copybutton"):
        pytest.importorskip(name)
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", "-D", "nb_execution_mode=off"]
    subprocess.run([*command, str(DOCS), str(tmp_path)], check=True, cwd=ROOT)
    faults, counts = check_site.check(tmp_path)
    assert not faults and counts["links"] > 1_000
