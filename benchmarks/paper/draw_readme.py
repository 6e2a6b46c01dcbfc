"""Draw the README's picture: product, mixture and negation, by the truth, by reverse diffusion and by annealed HMC.

    python benchmarks/paper/draw_readme.py    # a minute on two cores; docs/readme.png

Densities are those that ship with the package, chains and seeds those of `numpyro-diffusion demo`.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from numpyro_diffusion.cli import demo
from numpyro_diffusion.datasets.targets import NAMES, target

OUT = Path(__file__).resolve().parents[2] / "docs" / "readme.png"
CHAINS, EDGE = 1000, 1.05
COLOURS = ("#6b7280", "#c0562f", "#14315c")
TITLES = ("truth", "reverse diffusion", "numpyro_diffusion, annealed HMC")


def main() -> None:
    """Sample, draw, and write the picture with few colours, as a small file."""
    figure = Figure(figsize=(8.4, 8.6), layout="constrained")
    axes = figure.subplots(3, 3)
    for row, name in zip(axes, NAMES, strict=True):
        figures, samples = demo.compare(name, num_chains=CHAINS, seed=0, told=lambda _: None)
        for ax, found, x, colour in zip(row, figures, samples, COLOURS, strict=True):
            ax.scatter(*np.asarray(x).T, s=4, alpha=0.45, linewidths=0, color=colour)
            ax.set(xlim=(-EDGE, EDGE), ylim=(-EDGE, EDGE), xticks=[], yticks=[], aspect="equal")
            ax.spines[:].set_color("#d4d4d4")
            ax.set_xlabel(label(found), fontsize=9, color=colour)
        first, second = target(name).factors
        row[0].set_ylabel(f"{name} of\n{first} and {second}".replace("_", " "), fontsize=10)
    for ax, title, colour in zip(axes[0], TITLES, COLOURS, strict=True):
        ax.set_title(title, fontsize=11, color=colour)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=100)
    Image.open(buffer).convert("RGB").quantize(48).save(OUT, optimize=True)
    print(f"{OUT.name}: {OUT.stat().st_size:,} bytes")


def label(found: dict) -> str:
    """What is said below a panel."""
    return f"log likelihood {found['log_likelihood']:.2f}, {found['fraction_outside']:.0%} outside"


if __name__ == "__main__":
    main()
