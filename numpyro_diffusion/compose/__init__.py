"""The named compositions of the literature, on top of the algebra of `density`."""

from .operators import classifier_free_guided, compose_conditions, guided, mixture, negation, product, temper
from .sculpting import contrast, harmonic_mean

__all__ = [
    "classifier_free_guided", "compose_conditions", "contrast", "guided", "harmonic_mean", "mixture", "negation",
    "product", "temper",
]  # fmt: skip
