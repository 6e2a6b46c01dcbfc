r"""Docstrings are read in a terminal first: `[*event_shape]`, `*args` and `|w|` mean themselves there.

reStructuredText takes a star for emphasis and bars for a substitution; outside of code and formulas they are escaped.
"""

from __future__ import annotations

import re

#: Code and formulas, in which nothing is escaped, and emphasis of whole words.
KEPT = re.compile(r"``.+?``|`[^`]+`|(?<![\w*\[\\])\*(?![\s*])[^*\[\]\n]+(?<!\s)\*(?![\w*])")


def escaped(text: str) -> str:
    kept, parts = KEPT.findall(text), KEPT.split(text)
    parts = [re.sub(r"(?<!\\)([*|])", r"\\\1", part) for part in parts]
    return "".join(part + code for part, code in zip(parts, [*kept, ""], strict=True))


def process(app, what, name, obj, options, lines):
    verbatim = None  # the indentation below which code or a formula ends
    for i, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if verbatim is not None and line.strip() and indent <= verbatim:
            verbatim = None
        if verbatim is None:
            if line.rstrip().endswith("::"):
                verbatim = indent
            lines[i] = escaped(line)


def setup(app):
    app.connect("autodoc-process-docstring", process, priority=400)  # before napoleon
    return {"parallel_read_safe": True, "parallel_write_safe": True}
