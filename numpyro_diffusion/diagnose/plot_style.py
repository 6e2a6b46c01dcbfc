"""How the pictures of `plots` look."""

from __future__ import annotations

from ..errors import missing_library

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


def style(ax, *, grid: bool = True) -> None:
    """Quiet axes."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(GREY)
    ax.tick_params(colors=INK, labelsize=9, width=0.8, which="major")
    ax.tick_params(which="minor", length=0)
    ax.set_axisbelow(True)
    if grid:
        ax.grid(color="#E6E8EB", linewidth=0.8)


def legend(ax, **options) -> None:
    """A legend without a frame."""
    ax.legend(fontsize=9, frameon=False, handlelength=1.6, labelcolor=INK, **options)
