"""`python -m numpyro_diffusion.cli`."""

from .main import main

main()
