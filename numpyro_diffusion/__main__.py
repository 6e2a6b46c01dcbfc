"""`python -m numpyro_diffusion`: the command line."""

from .cli.main import main

main(prog_name="numpyro-diffusion")
