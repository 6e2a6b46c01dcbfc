"""Options that several commands share: counts, seeds, files to read and to write, models."""

from __future__ import annotations

import os
from pathlib import Path

import click

#: Endings of files of which each means one kind.
KINDS = (".npy", ".npz", ".csv", ".txt", ".json", ".pdf", ".svg", ".jpg", ".jpeg", ".png", ".safetensors")


class File(click.Path):
    """A file, with ~ for the home folder, of the kind that its ending says, if it is one to write.

    Args:
        suffix: What its name ends in, if in anything that means a kind of file (of a picture: in anything); None asks
            nothing.
    """

    def __init__(self, suffix: str | None = None):
        super().__init__(path_type=Path)
        self.suffix = suffix

    def convert(self, value, param, ctx):
        """The path, or a usage error."""
        path = Path(os.path.expanduser(os.fsdecode(super().convert(value, param, ctx))))
        ending = path.suffix.lower()
        wrong = ending not in ("", self.suffix) and (ending in KINDS or self.suffix == ".png")
        if self.suffix is not None and wrong:
            self.fail(f"{str(value)!r} must end in {self.suffix}, which is what it will hold.", param, ctx)
        return path


class Model(click.ParamType):
    """A density: a file, with ~ for the home folder, or the name of a pretrained one."""

    name = "text"

    def convert(self, value, param, ctx):
        """The text, with the home folder in place of ~."""
        return os.path.expanduser(value)


def count(least: int = 1) -> click.IntRange:
    """The type of a number of chains, of steps, or of points of a batch."""
    return click.IntRange(least, 10**8)


def output(suffix: str, what: str):
    """The option --output of a file that must be given."""
    return click.option("--output", type=File(suffix), required=True, help=f"{what}, {suffix}.")


def data(what: str, *, required: bool = True):
    """The option --data of an array in a file."""
    return click.option("--data", type=File(), required=required, help=what)


def model(what: str, *, required: bool = True):
    """The option --model of one density, by file or name."""
    return click.option("--model", type=Model(), required=required, metavar="FILE|NAME", help=what)


def chains(least: int, default: int, what: str):
    """The option --num-chains."""
    return click.option("--num-chains", type=count(least), default=default, show_default=True, help=what)


seed = click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Random seed.")
force = click.option("--force", is_flag=True, help="Replace the output file if it exists.")
checkpoint = click.option("--checkpoint", type=File(), help="Keep the run's state in this file, and resume from it.")
steps = click.option("--steps", type=count(), default=10_000, show_default=True, help="Optimiser steps.")
batch_size = click.option("--batch-size", type=count(), default=512, show_default=True)
