"""Every command shows examples, and they are command lines that the program takes."""

import shlex

import pytest
from command import invoke

from numpyro_diffusion.cli import main as cli
from numpyro_diffusion.cli.examples import EXAMPLES, lines


def test_every_command_has_examples():
    assert set(EXAMPLES) == set(cli.main.commands)
    assert all(lines(command) for command in EXAMPLES)


@pytest.mark.parametrize("command", EXAMPLES)
def test_help_ends_in_examples_as_they_are_typed(command):
    shown = invoke(command, "--help").stdout.splitlines()
    assert [line.strip() for line in shown[-len(lines(command)) :]] == lines(command)


@pytest.mark.parametrize("line", [line for command in EXAMPLES for line in lines(command)])
def test_examples_are_taken(line):
    program, command, *arguments = shlex.split(line)
    assert program == "numpyro-diffusion"
    # Parses everything, and runs nothing.
    cli.main.commands[command].make_context(command, arguments)


def test_the_program_itself_begins_with_the_doctor():
    shown = [line.strip() for line in invoke("--help").stdout.splitlines()]
    assert shown[shown.index("Examples:") + 1] == "numpyro-diffusion doctor"
