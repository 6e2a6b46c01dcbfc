"""The command line as tests call it."""

from click.testing import CliRunner

from numpyro_diffusion.cli import main as cli


def invoke(*arguments):
    """The result of a command; a traceback, should there be one, is shown as what it is."""
    return CliRunner().invoke(cli.main, [str(a) for a in arguments])


def fails(*arguments):
    """The one line that a refused command says."""
    result = invoke(*arguments)
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    message = result.stderr.strip().splitlines()
    assert len(message) == 1 and message[0].startswith("Error: ")
    return message[0]
