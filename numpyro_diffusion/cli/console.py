"""What the command line prints, and how it fails: one line on stderr and exit code 1, nothing that a terminal obeys."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import click
import jax

from ..checks.text import printable
from ..errors import DiagnosticWarning, DiffusionError, InterruptWarning, TextError
from .examples import epilog


class Commands(click.Group):
    """Turns the package's exceptions into one line, and its warnings into one line each; help ends in examples."""

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Add a command that `examples.EXAMPLES` knows."""
        cmd.epilog = epilog([name or cmd.name or ""])
        super().add_command(cmd, name)

    def invoke(self, ctx):
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            # What has several runs to do does not go on to the next one.
            warnings.simplefilter("error", InterruptWarning)
            try:
                return super().invoke(ctx)
            except InterruptWarning as error:
                raise click.ClickException("interrupted.") from error
            except TextError as error:
                # It points at a place, in a line of its own.
                raise click.ClickException("\n".join(map(printable, str(error).split("\n")))) from error
            except (DiffusionError, OSError, ImportError) as error:
                raise click.ClickException(one_line(error)) from error
            except (MemoryError, jax.errors.JaxRuntimeError) as error:
                if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
                    raise click.ClickException("not enough memory. Take fewer chains, images or points.") from error
                raise


@contextmanager
def interrupts() -> Iterator[list[InterruptWarning]]:
    """A list that takes warnings of an interrupt, for commands that have something to do with what there is."""
    found, show = [], warnings.showwarning

    def note(message, *args, **kwargs):
        found.append(message) if isinstance(message, InterruptWarning) else show(message, *args, **kwargs)

    with warnings.catch_warnings():
        warnings.simplefilter("always", InterruptWarning)
        warnings.showwarning = note
        yield found


def one_line(text) -> str:
    """One line that a terminal does not obey: file names and names in files may hold anything."""
    return printable(" ".join(str(text).split()))


def echo(text) -> None:
    """Print lines, none of which a terminal obeys."""
    click.echo("\n".join(printable(line) for line in str(text).split("\n")))


def _show_warning(message, category, filename, lineno, file=None, line=None):
    if issubclass(category, DiagnosticWarning):
        click.echo(f"Warning: {one_line(message)}", err=True)
    else:
        click.echo(warnings.formatwarning(message, category, filename, lineno, line), err=True, nl=False)
