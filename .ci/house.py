"""Figures of the house: how large its rooms are, and in how many places one thing is done.

    python .ci/house.py                   of this checkout
    python .ci/house.py --against 110a881 beside those of another commit

Lengths of functions are counted without their docstrings, arguments without self. Places are counted by syntax: calls
of a function that begins a kernel's state from a log density, classes that hold a mean beside a variance in whatever
form, calls that read a checkpoint's arrays, calls of an optimiser's update, and calls of warnings.warn.
"""

from __future__ import annotations

import argparse
import ast
import io
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAME = "numpyro_diffusion"
#: Public entry points, whose arguments are what users may set.
ENTRY_POINTS = {"anneal", "distil", "fit", "AnnealedMCMC.__init__"}
#: Fields that a Gaussian consists of, beside its mean.
SPREADS = {"covariance", "covariances", "variance", "eigenvalues", "root", "scale"}


def modules(root: Path) -> dict[str, ast.Module]:
    """Syntax trees by dotted name, relative to the package."""
    package = root / NAME
    return {
        ".".join(path.relative_to(package).with_suffix("").parts).removesuffix("__init__").rstrip("."): ast.parse(
            path.read_text(encoding="utf-8")
        )
        for path in sorted(package.rglob("*.py"))
    }


def imported(module: str, trees: dict[str, ast.Module], is_package: bool) -> set[str]:
    """Modules of the package that a module imports anywhere: at its top, in functions, for the type checker."""
    package = [NAME, *(module.split(".") if module else [])]
    package = package if is_package or not module else package[:-1]
    found = set()
    for node in ast.walk(trees[module]):
        if not isinstance(node, ast.ImportFrom):
            continue
        base = package[: len(package) - node.level + 1] if node.level else []
        base = [*base, *(node.module.split(".") if node.module else [])]
        if base[:1] != [NAME]:
            continue
        for alias in node.names:
            name = ".".join([*base[1:], alias.name])
            while name and name not in trees:
                name = name.rpartition(".")[0]
            found.add(name)
    return found


def imports(root: Path) -> dict[str, set[str]]:
    """What every module imports of the package, itself left out; "" is the package as a whole."""
    trees = modules(root)
    folders = {name for name in trees if (root / NAME / name.replace(".", "/") / "__init__.py").is_file()}
    return {name: imported(name, trees, name in folders) - {name} for name in trees}


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """Sets of modules of which each reaches every other."""

    def reached(start: str) -> set[str]:
        found, queue = set(), [start]
        while queue:
            new = graph[queue.pop()] - found
            found |= new
            queue += new
        return found

    reach = {name: reached(name) for name in graph}
    tied = {frozenset({name} | {o for o in reach[name] if name in reach[o]}) for name in graph if name in reach[name]}
    return [set(circle) for circle in tied]


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    """Functions by qualified name, those within others too."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef):
            yield f"{prefix}{node.name}", node
        name = getattr(node, "name", None) if isinstance(node, ast.FunctionDef | ast.ClassDef) else None
        yield from functions(node, f"{prefix}{name}." if name else prefix)


def length(node: ast.FunctionDef) -> int:
    """Lines of a function without its docstring."""
    doc = node.body[0] if ast.get_docstring(node) is not None else None
    return node.end_lineno - node.lineno + 1 - (doc.end_lineno - doc.lineno + 1 if doc else 0)


def num_arguments(node: ast.FunctionDef) -> int:
    """Arguments of a function, self and cls left out."""
    names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")])


def called(tree: ast.AST) -> Iterator[str]:
    """The dotted names of all that is called."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func)


def holds_a_gaussian(node: ast.ClassDef) -> bool:
    """Whether a class has a mean (or means) and a spread among its own fields."""
    names = {
        item.target.id for item in node.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    }
    for inner in ast.walk(node):
        targets = (
            inner.targets
            if isinstance(inner, ast.Assign)
            else [inner.target]
            if isinstance(inner, ast.AnnAssign)
            else []
        )
        for target in targets:
            parts = target.elts if isinstance(target, ast.Tuple) else [target]
            names |= {p.attr for p in parts if isinstance(p, ast.Attribute) and ast.unparse(p.value) == "self"}
    return bool(names & {"mean", "means"}) and bool(names & SPREADS)


def places(trees: dict[str, ast.Module]) -> dict[str, list[str]]:
    """Where each of five things is done, as names of modules, one for each time."""
    found: dict[str, list[str]] = {k: [] for k in ("re-initialise", "Gaussian", "read", "optimiser", "warn")}
    for name, tree in trees.items():
        is_kernel = "kernels" in name.split(".")
        for call in called(tree):
            if call in ("init", "kernels.init") and not is_kernel:
                found["re-initialise"].append(name)
            if call in ("checkpoint.read", "read") and name.split(".")[-1] != "arrays":
                found["read"].append(name)
            if call == "optimiser.update":
                found["optimiser"].append(name)
            if call == "warnings.warn":
                found["warn"].append(name)
        classes = (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
        found["Gaussian"] += [f"{name}.{node.name}" for node in classes if holds_a_gaussian(node)]
    return found


def lines(folder: Path) -> int:
    """Lines of the Python files in a folder."""
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in folder.rglob("*.py"))


def figures(root: Path) -> dict[str, tuple[int, str]]:
    """Every figure with what it is of."""
    package, trees = root / NAME, modules(root)
    tied = circles(imports(root))
    sizes = {str(p.relative_to(root)): len(p.read_text(encoding="utf-8").splitlines()) for p in package.rglob("*.py")}
    all_functions = [(f"{m}.{q}", q, node) for m, tree in trees.items() for q, node in functions(tree)]
    ours = [(name, node) for name, q, node in all_functions if q not in ENTRY_POINTS]
    longest = max(ours, key=lambda item: length(item[1]))
    most = max(ours, key=lambda item: num_arguments(item[1]))
    folders = [p.name for p in package.iterdir() if p.is_dir() and not p.name.startswith("__")]
    where = places(trees)
    return {
        "files in the root": (len(list(package.glob("*.py"))), ""),
        "folders in the root": (len(folders), ", ".join(sorted(folders))),
        "import circles": (len(tied), "; ".join(", ".join(sorted(circle)) for circle in tied)),
        "modules in circles": (len(set().union(*tied)), ""),
        "longest file": (max(sizes.values()), max(sizes, key=lambda name: sizes[name])),
        "longest function": (length(longest[1]), longest[0]),
        "most arguments": (num_arguments(most[1]), most[0]),
        "lines of the package": (lines(package), ""),
        "lines of tests": (lines(root / "tests"), ""),
        "lines of benchmarks": (lines(root / "benchmarks"), ""),
        "re-initialise a kernel state": (len(where["re-initialise"]), ", ".join(where["re-initialise"])),
        "define a Gaussian": (len(where["Gaussian"]), ", ".join(where["Gaussian"])),
        "read a checkpoint": (len(where["read"]), ", ".join(where["read"])),
        "loop over optimiser steps": (len(where["optimiser"]), ", ".join(where["optimiser"])),
        "call warnings.warn": (len(where["warn"]), ", ".join(where["warn"])),
    }


def of_commit(commit: str) -> dict[str, tuple[int, str]]:
    """The figures of another commit of this repository."""
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=True).stdout
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(folder, filter="data")
        return figures(Path(folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", metavar="COMMIT", help="a commit to print the figures of beside this checkout's")
    against = parser.parse_args().against
    before = of_commit(against) if against else {}
    for name, (value, what) in figures(ROOT).items():
        earlier = f"{before[name][0]:>9,}  ->" if before else ""
        print(f"{name:<30}{earlier}{value:>9,}  {what}")


if __name__ == "__main__":
    main()
