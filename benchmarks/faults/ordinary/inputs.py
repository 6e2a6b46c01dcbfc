"""Ordinary use: what a stranger tries, kind by kind, and what came back: right, refused, or wrong.

An `Input` is a call that checks what it gets against a closed form and says what it found. Whatever it raises is wrong,
unless the input may be refused and the error is typed and says what it should: the rule, the value, the remedy.
"""

from __future__ import annotations

import contextlib
import gc
import json
import re
import signal
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np
from tqdm.auto import tqdm

from benchmarks.table import RESULTS, write
from numpyro_diffusion.errors import DiagnosticWarning, DiffusionError

KEY = jax.random.key(0)
PATIENCE = 300.0  # seconds after which an input counts as hanging
HEADER = """# Ordinary use

`python benchmarks/faults/faults.py --only ordinary`. Inputs of every kind that issue reports know, none of them those of the tests, and
what came back. *Right*: agrees with a closed form, a quadrature in double precision, or five standard errors of one, or a finding says that it does not.
*Refused*: a typed error that says the rule, the value and the remedy. *Wrong*: everything else, untyped errors, NaN without a word and calls that do not come back included.
"""


class Input(NamedTuple):
    """One thing to try.

    Attributes:
        name: What is tried.
        call: Returns what was found, as text; raises if that is not right.
        refusal: Pattern of the typed error that may come instead; empty if the input must be right.
        must_refuse: Whether the input must be refused.
    """

    name: str
    call: Callable[[], str | None]
    refusal: str = ""
    must_refuse: bool = False


class Verdict(NamedTuple):
    """What came of an input: "right", "refused" or "wrong", and in what words."""

    name: str
    verdict: str
    note: str


class Wrong(Exception):
    """A result that is not right."""


def require(fine, note: str) -> None:
    """Raise Wrong unless all is fine; nothing at all is not."""
    if not (np.size(fine) and np.all(fine)):
        raise Wrong(note)


def close(found, truth, tolerance: float = 1e-4) -> str:
    """Text of a number or array that agrees with the truth to `tolerance`, absolute or relative. Raises Wrong."""
    found, truth = np.asarray(found, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    difference = np.where(found == truth, 0.0, np.abs(found - truth) / np.maximum(1.0, np.abs(truth)))
    said = f"{np.ravel(found)[0]:.6g}" + (f" and {found.size - 1} more" if found.size > 1 else "")
    require(difference <= tolerance, f"{np.ravel(found)[:4]} for {np.ravel(truth)[:4]}")
    return said


def refused(name: str, call: Callable, words: str) -> Input:
    """An input that must be refused, in these words."""
    return Input(name, call, words, True)


@contextlib.contextmanager
def caught() -> Iterator[list[str]]:
    """Texts of the DiagnosticWarnings that are issued while it lasts."""
    found: list[str] = []
    with warnings.catch_warnings(record=True) as issued:
        warnings.simplefilter("always")
        yield found
    found += [str(w.message) for w in issued if issubclass(w.category, DiagnosticWarning)]


def verdict(given: Input) -> Verdict:
    """What came of an input, in words that do not depend on the machine."""
    name, what, note = _verdict(given)
    note = re.sub(re.escape(tempfile.gettempdir()) + r"/(faults_\w+/)?", "", note)
    return Verdict(name, what, re.sub(r" at 0x[0-9a-f]+", "", note))


def _verdict(given: Input) -> Verdict:

    def hung(*_):
        raise Wrong(f"did not come back in {PATIENCE:.0f} s")

    before = signal.signal(signal.SIGALRM, hung)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = given.call()
    except DiffusionError as error:
        fits = bool(given.refusal) and re.search(given.refusal, str(error), re.DOTALL)
        text = f"{type(error).__name__}: {error}"
        return Verdict(given.name, "refused" if fits else "wrong", text)
    except Wrong as error:
        return Verdict(given.name, "wrong", str(error))
    except Exception as error:  # whatever a user would see
        return Verdict(given.name, "wrong", f"untyped {type(error).__name__}: {str(error)[:300]}")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    if given.must_refuse:
        return Verdict(given.name, "wrong", f"not refused; {found or 'no error'}")
    return Verdict(given.name, "right", found or "")


def table(found: dict[str, dict]) -> str:
    """Markdown: numbers by kind, then every input with what came back."""
    lines = [HEADER.strip(), "", "| kind | inputs | right | refused | wrong | seconds |", "|---|---|---|---|---|---|"]
    count = lambda row, what: sum(v[1] == what for v in row["verdicts"])
    for kind, row in found.items():
        numbers = [len(row["verdicts"]), *(count(row, what) for what in ("right", "refused", "wrong"))]
        lines.append(f"| {kind} | {' | '.join(map(str, numbers))} | {row['seconds']:.0f} |")
    for kind, row in found.items():
        lines += ["", f"## {kind}", "", "| input | came back | |", "|---|---|---|"]
        for name, what, note in row["verdicts"]:
            cells = [re.sub(r"\s+", " ", text.replace("|", "/")) for text in (name, what, note)]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def ordinary(kinds: dict[str, Callable[[], list[Input]]], options) -> bool:
    """Try what is missing of `kinds`, write results/faults_ordinary.json and .md, print the table; whether none is wrong."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"faults_ordinary{'_quick' if options.quick else ''}.json"
    found = {} if options.fresh or not path.exists() else json.loads(path.read_text())
    wanted = [kind for kind in kinds if options.only in kind]
    jax.config.update("jax_disable_most_optimizations", True)  # compiling costs more than these runs
    for kind in wanted:
        if kind in found:
            continue
        start, inputs = time.perf_counter(), kinds[kind]()
        inputs = inputs[:: max(len(inputs) // 3, 1)] if options.quick else inputs
        verdicts = [verdict(given) for given in tqdm(inputs, desc=kind)]
        found[kind] = {"verdicts": verdicts, "seconds": round(time.perf_counter() - start, 1)}
        found = {k: found[k] for k in kinds if k in found}
        write(path, json.dumps(found, indent=1))
        write(path.with_suffix(".md"), table(found))
        jax.clear_caches()
        gc.collect()
    found = json.loads(path.read_text()) if path.exists() else {}
    print(table({kind: found[kind] for kind in wanted}))
    return all(v[1] != "wrong" for kind in wanted for v in found[kind]["verdicts"])
