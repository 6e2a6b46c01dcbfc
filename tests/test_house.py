"""The rules of the house: what may be committed, and which file may import which."""

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "numpyro_diffusion"
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
SAMPLING = {"anneal", "kernels", "reverse", "tuning", "bounds"}


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def nodes(tree: ast.AST):
    """Yields the nodes that run, those inside functions too; imports for the type checker alone do not count."""
    for child in ast.iter_child_nodes(tree):
        if not is_type_checking(child):
            yield child
            yield from nodes(child)


def imported(module: str) -> tuple[set[str], set[str]]:
    """Returns the modules of this package, and the other top-level packages, that a module imports itself."""
    path = MODULES[module]
    package = ["numpyro_diffusion", *path.relative_to(PACKAGE).parent.parts]
    names = set()
    for node in nodes(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = [*base, *(node.module.split(".") if node.module else [])]
            # `from .a import b`: b may be a name in module a, or itself a module.
            names |= {".".join([*base, alias.name]) for alias in node.names}
    ours, others = set(), set()
    for name in names:
        first, _, rest = name.partition(".")
        if first != "numpyro_diffusion":
            others.add(first)
            continue
        while rest and rest not in MODULES:
            rest = rest.rpartition(".")[0]
        ours.add(rest or "__init__")
    return ours, others


def reached(module: str) -> set[str]:
    """Returns every module of this package that a module imports, itself or through others."""
    found, queue = set(), [module]
    while queue:
        new = imported(queue.pop())[0] - found
        found |= new
        queue += new
    return found


def part_of(module: str, parts: set[str]) -> bool:
    return module.split(".")[0] in parts


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


@pytest.mark.parametrize("module", MODULES)
def test_every_module_says_what_it_is_for(module):
    assert ast.get_docstring(ast.parse(MODULES[module].read_text(encoding="utf-8")))


def test_no_utils():
    assert [module for module in MODULES if module.split(".")[-1].strip("_") in {"util", "utils", "helpers"}] == []


def test_training_and_sampling_never_import_each_other():
    assert {"training", "anneal", "kernels"} <= {module.split(".")[0] for module in MODULES}
    for module in MODULES:
        if part_of(module, {"training"}):
            assert not {name for name in reached(module) if part_of(name, SAMPLING)}, module
        if part_of(module, SAMPLING):
            assert not {name for name in reached(module) if part_of(name, {"training"})}, module


@pytest.mark.parametrize(
    ("module", "allowed"),
    # The operators of a density make expressions, by a late import.
    [
        ("errors", set()),
        ("basis", set()),
        ("scalars", {"errors"}),
        ("schedule", {"errors", "scalars"}),
        ("gaussian", {"basis"}),
        ("program", {"errors"}),
        ("identity", {"errors", "program"}),
        ("density", {"errors", "gaussian", "identity", "program", "scalars", "schedule", "expression"}),
        ("pytree", set()),
    ],
)
def test_the_bottom_imports_nothing_above_it(module, allowed):
    assert imported(module)[0] <= allowed


@pytest.mark.parametrize("module", MODULES)
def test_only_kernels_knows_blackjax(module):
    assert "blackjax" not in imported(module)[1] or module == "kernels"


@pytest.mark.parametrize("module", [module for module in MODULES if module not in {"__init__", "cli", "__main__"}])
def test_no_module_imports_the_whole_package(module):
    # It would reach every other module and hide from the tests above.
    assert "__init__" not in imported(module)[0]
