"""Formulas as MathML, which browsers set by themselves: no script, no fonts and no server are needed to read them."""

from __future__ import annotations

import html
import re

from docutils.nodes import SkipNode
from latex2mathml.converter import convert


def formula(text, **how):
    """MathML of LaTeX, with the thin space between a function and its argument that LaTeX has and MathML has not."""
    return re.sub(r"(<mi>(?:log|exp|max|min|det)</mi>)(?!<mo)", r'\1<mspace width="0.17em"/>', convert(text, **how))


def inline(translator, node):
    translator.body.append(formula(node.astext()))
    raise SkipNode


def display(translator, node):
    text = node.astext().strip()
    # An environment of its own, or lines with marks, are set as LaTeX's `aligned` sets them.
    if "\\\\" in text and "\\begin" not in text:
        text = rf"\begin{{aligned}}{text}\end{{aligned}}"
    words = html.escape(text, quote=True)
    translator.body.append(f'<div class="math" title="{words}">{formula(text, display="block")}</div>')
    raise SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", inline_renderers=(inline, None), block_renderers=(display, None))
    app.config.html_math_renderer = "mathml"
    return {"parallel_read_safe": True, "parallel_write_safe": True}
