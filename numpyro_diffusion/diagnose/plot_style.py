"""How the pictures of `plots` look."""

from __future__ import annotations

import re
import textwrap

from ..checks.text import layout
from ..errors import ParameterError, missing_library

# Okabe and Ito's palette: told apart with every kind of colour vision.
BLUE, ORANGE, GREEN, GREY, INK = "#0072B2", "#D55E00", "#009E73", "#8A8F98", "#2B2F36"
#: Shares of the mass that contours enclose, and the fills between them from the outside in.
MASSES = (0.99, 0.9, 0.7, 0.4)
FILLS = ("#F1ECE3", "#E5DACA", "#D6C5AB", "#C6AF8B")


def pyplot():
    """matplotlib.pyplot, or a MissingLibraryError that says what to install."""
    # Here, not at the top: the package works without matplotlib.
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise missing_library("plots", "pictures need") from error
    return plt


def axes_or_new(ax, **options):
    """The axes, or where there are none, those of a new figure; ParameterError for what is no axes."""
    plt = pyplot()
    if ax is None:
        return plt.subplots(layout="constrained", **options)[1]
    if not isinstance(ax, plt.Axes):
        raise ParameterError(f"ax must be matplotlib axes; got {layout(ax)}. Of several, pick one: axes[0].")
    return ax


def style(ax, *, grid: bool = True) -> None:
    """Quiet axes."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(GREY)
    ax.tick_params(colors=INK, labelsize=9, width=0.8, which="major")
    ax.tick_params(which="minor", length=0)
    ax.set_axisbelow(True)
    if grid:
        ax.grid(color="#E6E8EB", linewidth=0.8)


def set_title(of, text: str | None, size: float = 11) -> None:
    """The title of axes or of a figure, no wider than they are: a long one is a quarter smaller, and in lines."""
    text = text or ""
    shown = of.set_title(text) if hasattr(of, "set_title") else of.suptitle(text)
    shown.set(fontsize=size, color=INK)
    if hasattr(of, "apply_aspect"):
        of.apply_aspect()
    share = shown.get_window_extent().width / of.get_window_extent().width
    smaller = min(max(1 / share, 0.75), 1.0) if share else 1.0
    shown.set_fontsize(smaller * size)
    if share * smaller > 1.001:
        longest = 0.93 * max(map(len, text.split("\n"))) / (share * smaller)  # some letters are wider
        # Formulas stay whole.
        whole = re.sub(r"\$[^$]*\$", lambda formula: formula[0].replace(" ", "\0"), text)
        lines = (textwrap.fill(line, max(int(longest), 8)) for line in whole.split("\n"))
        shown.set_text("\n".join(lines).replace("\0", " "))


def legend(ax, **options) -> None:
    """A legend without a frame."""
    ax.legend(fontsize=9, frameon=False, handlelength=1.6, labelcolor=INK, **options)
