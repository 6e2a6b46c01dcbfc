"""Formulas as MathML, which browsers set by themselves: no script, no fonts and no server are needed to read them."""

from __future__ import annotations

import html

from latex2mathml.converter import convert


def inline(translator, node):
    translator.body.append(convert(node.astext()))
    raise _skip()


def display(translator, node):
    text = node.astext().strip()
    # An environment of its own, or lines with marks, are set as LaTeX's `aligned` sets them.
    if "\\\\" in text and "\\begin" not in text:
        text = rf"\begin{{aligned}}{text}\end{{aligned}}"
    formula = convert(text, display="block")
    translator.body.append(f'<div class="math" title="{html.escape(text, quote=True)}">{formula}</div>')
    raise _skip()


def _skip():
    from docutils.nodes import SkipNode

    return SkipNode()


def setup(app):
    app.add_html_math_renderer("mathml", inline_renderers=(inline, None), block_renderers=(display, None))
    app.config.html_math_renderer = "mathml"
    return {"parallel_read_safe": True, "parallel_write_safe": True}
