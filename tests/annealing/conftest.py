"""Problems and runs of them."""

import pytest
from exact_problems import P2, Q2, components, gaussian, mixture, of_components, of_product, of_quadrature, sample


@pytest.fixture(scope="module")
def problems():
    g = gaussian([1.0, -2.0], [[2.0, 0.3], [0.3, 0.05]])
    return {
        "gaussian": of_components(g, components(g)),
        "mixture": of_components(P2, components(P2)),
        "product": of_product(P2, Q2),
        "product in 5-d": of_product(mixture(2, 5, 0.6), mixture(3, 5, 0.6)),
        "harmonic mean": of_quadrature(P2 * Q2 / (0.4 * P2 + 0.6 * Q2)),
    }


@pytest.fixture(scope="module")
def runs(problems):
    """Default runs by (problem, kernel), made when first asked for."""
    made = {}

    def get(name, kernel, seed=0, **settings):
        key = (name, type(kernel).__name__, seed, *settings.items())
        if key not in made:
            made[key] = sample(problems[name].density, kernel, seed, **settings)
        return made[key]

    return get
