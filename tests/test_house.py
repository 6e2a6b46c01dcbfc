"""The rules of the house: what may be committed, and which file may import which."""

import ast
import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

spec = importlib.util.spec_from_file_location("house", ROOT / ".ci" / "house.py")
assert spec is not None and spec.loader is not None
house = importlib.util.module_from_spec(spec)
spec.loader.exec_module(house)

TREES, GRAPH = house.modules(ROOT), house.imports(ROOT)
#: From the ground up: a file imports from rooms before its own, and from its own.
ROOMS = (
    "errors", "pytree", "program", "checks", "networks", "density", "compose", "disk", "train", "datasets",
    "classifier", "diagnose", "adapters", "annealing", "distillation", "infer", "gflownet", "cli", "__main__",
)  # fmt: skip
#: The only files that know a library from the inside.
INSIDERS = {"blackjax": {"annealing.kernels"}, "safetensors": {"disk.checkpoint"}, "zarr": {"annealing.history"}}


def room(module: str) -> str:
    return module.split(".")[0]


def committed_files() -> list[Path]:
    try:
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listing = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs git and a checkout")
    paths = [ROOT / name for name in listing.decode().split("\0") if name]
    return [path for path in paths if path.is_file()]


# Written so that no pattern matches its own text.
FORBIDDEN = {
    "a registry host": rb"pypi[.]org|python[h]osted|registry[.]npm|index[-_]url|art[i]factory",
    "an absolute path of one machine": rb"""(?:^|[\s"'`=(:,])/(?:home|root|work|Users|tmp|mnt|opt)/[\w.]""",
    "a path of one Windows machine": rb"[A-Z]:[\\]{1,2}Users[\\]",
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_committed_files_name_no(what):
    pattern = re.compile(FORBIDDEN[what], re.MULTILINE)
    found = {}
    for path in committed_files():
        if match := pattern.search(path.read_bytes()):
            found[str(path.relative_to(ROOT))] = match.group().decode(errors="replace").strip()
    assert found == {}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_the_patterns_above_find_what_they_should(what):
    samples = [b"https://pypi%sorg/simple" % b".", b'"%shome/someone"' % b"/", b"C%sUsers%sx" % (b":\\", b"\\")]
    assert sum(bool(re.search(FORBIDDEN[what], sample, re.MULTILINE)) for sample in samples) == 1


def test_one_version():
    import numpyro_diffusion

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert numpyro_diffusion.__version__ == project["version"]
    assert f"## [{project['version']}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_constraints_pin_every_dependency():
    def names(lines):
        found = (re.match(r"[\w-]+", line) for line in lines)
        return {match.group().lower().replace("_", "-") for match in found if match}

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = names([*project["dependencies"], *sum(project["optional-dependencies"].values(), [])])
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[\w.]+", line) for line in pinned)
    assert wanted - {"numpyro-diffusion"} <= names(pinned)


@pytest.mark.parametrize("module", TREES)
def test_every_module_says_what_it_is_for(module):
    assert ast.get_docstring(TREES[module])


def test_no_utils():
    assert [module for module in TREES if module.split(".")[-1].strip("_") in {"util", "utils", "helpers"}] == []


def test_every_room_has_a_place_in_the_order():
    assert {room(module) for module in TREES if module} == set(ROOMS)


@pytest.mark.parametrize("module", [module for module in GRAPH if module])
def test_imports_point_to_rooms_before(module):
    allowed = ROOMS[: ROOMS.index(room(module)) + 1]
    wrong = {name for name in GRAPH[module] if name and room(name) not in allowed}
    if room(module) == "annealing":
        wrong |= {name for name in GRAPH[module] if room(name) == "train"}
    assert wrong == set()


def test_no_module_imports_the_whole_package():
    # It would reach every other module and hide from the tests above.
    assert [module for module in GRAPH if "" in GRAPH[module]] == []


@pytest.mark.parametrize("library", INSIDERS)
def test_few_files_know_a_library_from_the_inside(library):
    def knows(tree):
        names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
        names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level]
        return any(name.split(".")[0] == library for name in names)

    known = INSIDERS[library]
    found = {module for module, tree in TREES.items() if knows(tree)}
    assert all(any(f"{module}.".startswith(f"{prefix}.") for prefix in known) for module in found), found


#: What may not be exceeded, and what there must be one of.
MOST = {
    "files in the root": 5, "folders in the root": 16, "import circles": 0, "longest file": 300, "longest function": 60,
    "most arguments": 10, "re-initialise a kernel state": 1, "define a Gaussian": 1, "read a checkpoint": 1,
    "loop over optimiser steps": 1, "call warnings.warn": 1,
}  # fmt: skip


def test_figures_of_the_house():
    found = house.figures(ROOT)
    assert {name: found[name] for name, most in MOST.items() if found[name][0] > most} == {}


@pytest.mark.parametrize("folder", ["tests", "benchmarks"])
def test_no_long_files(folder):
    long = {p.name: n for p in (ROOT / folder).rglob("*.py") if (n := len(p.read_text("utf-8").splitlines())) > 300}
    assert long == {}


def test_the_architecture_names_what_there_is():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)/` \|.*\| `(\w+)\.py` \|$", text, re.MULTILINE)
    assert {room for room, _ in rows} == {
        room for room in ROOMS if room not in {"errors", "pytree", "program", "__main__"}
    }
    assert {f"{room}.{file}" for room, file in rows} <= set(TREES)
    dotted = re.findall(rf"`((?:{'|'.join(ROOMS)})\.[\w.]+)`", text)
    missing = []
    for name in dotted:
        module = name
        while module not in TREES:
            module = module.rpartition(".")[0]
        first = name.removeprefix(module).lstrip(".").split(".")[0]
        if not module or (first and first != "py" and not re.search(rf"\b{first}\b", ast.unparse(TREES[module]))):
            missing.append(name)
    assert missing == []


def test_tests_mirror_the_rooms():
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and not path.name.startswith("__")}
    assert folders <= set(ROOMS)


def test_slow_libraries_are_imported_where_they_are_used():
    slow = {"arviz", "matplotlib", "pandas", "rdkit", "scipy.interpolate", "scipy.optimize", "scipy.stats", "xarray"}
    code = f"import sys, numpyro_diffusion; print(*sorted({slow!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
