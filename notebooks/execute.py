"""Executes the notebooks of this folder and fails if any cell fails.

    python notebooks/execute.py            all of them
    python notebooks/execute.py 01_path    those whose name starts so

The notebooks are plain Python files in jupytext's percent format; the executed .ipynb, with its pictures, is written
to executed/ beside them, also when a cell fails: the traceback is in it. What differs from run to run for no reason
(times, names of temporary files) is left out.
"""

import re
import sys
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

FOLDER = Path(__file__).resolve().parent
CELL_TIMEOUT = 1800  # seconds


def execute(source: Path) -> bool:
    """Executes one notebook, writes the result and tells whether every cell ran."""
    notebook = jupytext.read(source)
    # Cells run in the folder of the notebooks, as they do when a person opens one.
    client = NotebookClient(
        notebook, timeout=CELL_TIMEOUT, kernel_name="python3", record_timing=False,
        resources={"metadata": {"path": str(FOLDER)}},
    )  # fmt: skip
    start = time.monotonic()
    try:
        client.execute()
        error = None
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as exception:
        error = exception
    target = FOLDER / "executed" / source.with_suffix(".ipynb").name
    target.parent.mkdir(exist_ok=True)
    nbformat.write(tidy(notebook), target)
    verdict = "ok" if error is None else f"FAILED\n{error}"
    print(f"{source.name}: {time.monotonic() - start:.0f} s, {verdict}", flush=True)
    return error is None


def tidy(notebook):
    """The notebook without the kernel's process numbers, whose temporary files warnings name, and without progress bars."""
    for cell in notebook.cells:
        outputs = cell.get("outputs", [])
        for output in outputs:
            if output.output_type == "stream":
                text = re.sub(r"\S*ipykernel_\d+/\d+\.py", "cell", output.text)
                # A bar is drawn over itself, once for every look at it.
                output.text = re.sub(r"\r[^\r\n]*", "", text)
        if outputs:
            cell.outputs = [o for o in outputs if o.output_type != "stream" or o.text.strip()]
    return notebook


def main(prefixes: list[str]) -> int:
    """Executes the chosen notebooks; 0 if all ran, 1 otherwise."""
    sources = [path for path in sorted(FOLDER.glob("*.py")) if path != Path(__file__).resolve()]
    if prefixes:
        sources = [path for path in sources if path.name.startswith(tuple(prefixes))]
    if not sources:
        print(f"no notebook found; names given: {prefixes or 'none'}", file=sys.stderr)
        return 1
    results = [execute(source) for source in sources]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
