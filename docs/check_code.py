"""Runs the Python of README.md and of the documentation, as it stands there.

    python docs/check_code.py              all pages
    python docs/check_code.py start how_to  pages whose name contains one of these
    python docs/check_code.py --list       what there is, and what is only shown

Blocks marked `python`, and cells of pages that show their output, run in order, those of one page in one namespace and
one folder of its own. Blocks marked `py` are shown only: they need another machine, hours, or files of the reader's.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent
#: Pages whose code reads models that do not ship, and where these lie.
NEEDS = {"how_to_pytorch_weights": Path(os.environ.get("MNIST_MODELS", ROOT.parent / "shared" / "data"))}
FENCE = re.compile(
    r"^(?P<fence>`{3,})(?P<language>python|py|\{code-cell\}[^\n]*)\n(?P<code>.*?)^(?P=fence)$", re.M | re.S
)
OPTIONS = re.compile(r"\A(?:---\n.*?^---\n|(?::[\w-]+:[^\n]*\n)+)", re.M | re.S)


class Block(NamedTuple):
    """Code of a page and the line it begins in."""

    code: str
    line: int
    runs: bool


def pages() -> dict[str, Path]:
    """Pages by name: README and what lies in this folder."""
    found = [path for path in sorted(FOLDER.rglob("*.md")) if "_build" not in path.parts]
    return {"README": ROOT / "README.md"} | {str(p.relative_to(FOLDER).with_suffix("")): p for p in found}


def blocks(path: Path) -> list[Block]:
    """Blocks of Python in a page, in order."""
    text = path.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        code = match["code"]
        if match["language"].startswith("{"):
            code = OPTIONS.sub(lambda options: "\n" * options[0].count("\n"), code)
        found.append(Block(code, text.count("\n", 0, match.start()) + 2, match["language"] != "py"))
    return found


def run(name: str, path: Path) -> int:
    """Run the blocks of a page in a fresh folder; the number of blocks that ran."""
    names, there, number = {"__name__": "__main__"}, Path.cwd(), 0
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            for block in blocks(path):
                if block.runs:
                    if name == "README":  # each by itself
                        names = {"__name__": "__main__"}
                    # Lines of a traceback are those of the page.
                    exec(compile("\n" * (block.line - 1) + block.code, str(path), "exec"), names)
                    number += 1
        finally:
            os.chdir(there)
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="run pages whose name contains one of these")
    parser.add_argument("--list", action="store_true", help="count blocks, run none")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    os.environ.setdefault("MPLBACKEND", "Agg")
    ran = shown = failed = 0
    for name, path in pages().items():
        found = blocks(path)
        if not found or (options.names and not any(part in name for part in options.names)):
            continue
        shown += sum(not block.runs for block in found)
        if not options.list and name in NEEDS and not NEEDS[name].is_dir():
            print(f"{name}: not run, there is no {NEEDS[name]}")
            continue
        start = time.perf_counter()
        try:
            number = sum(block.runs for block in found) if options.list else run(name, path)
        except Exception:  # the page's fault, whatever it is
            import traceback

            traceback.print_exc()
            number, failed = 0, failed + 1
        ran += number
        print(f"{name}: {number} blocks, {time.perf_counter() - start:.0f} s", flush=True)
    print(
        f"{ran} blocks {'are to run' if options.list else 'ran'}, {shown} are only shown; pages that failed: {failed}"
    )
    raise SystemExit(bool(failed))


if __name__ == "__main__":
    main()
