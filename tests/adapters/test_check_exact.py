"""`check_model` of exact networks, on data whose noise is known for certain: no false alarm, and no miss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import numpyro_diffusion as nd

BETAS = np.linspace(1e-4, 0.02, 1000)
SQUARES = np.cumprod(1 - BETAS)
ALPHAS, SIGMAS = (jnp.asarray(squares**0.5, dtype=float) for squares in (SQUARES, 1 - SQUARES))
RNG = np.random.default_rng(0)
NORMAL, MODES = RNG.normal(size=(600, 6)), np.array([[1.0, 0.5], [-0.8, -0.6]])
#: The denoised mean of x = alpha x_0 + sigma eps in closed form, and data of its law.
LAWS = {
    "binary": (lambda x, a, s: jnp.tanh(a * x / s**2), RNG.choice([-1.0, 1.0], (500, 4))),
    "one-hot": (lambda x, a, s: jax.nn.softmax(a * x / s**2), np.eye(5)[RNG.integers(0, 5, 500)]),
    "constant sum": (
        lambda x, a, s: a * (x - x.mean()) / (a**2 + s**2) + 1 / 6, NORMAL - NORMAL.mean(1, keepdims=True) + 1 / 6
    ),
}  # fmt: skip


def in_steps(denoised, size: int, factor: float = 1.0):
    """A network of a thousand steps, which are whole numbers."""

    def noise(x, k):
        return (x - ALPHAS[k] * factor * denoised(x, ALPHAS[k], SIGMAS[k])) / SIGMAS[k]

    return nd.from_noise_prediction(noise, (size,), nd.NoiseSchedule.from_betas(BETAS), timesteps="integer")


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize("law", LAWS)
def test_exact_networks_have_no_finding(law):
    denoised, data = LAWS[law]
    report = nd.check_model(in_steps(denoised, data.shape[1]), data)
    assert report.findings == [] and report.is_trusted.all()


def test_what_is_a_tenth_off_has_one():
    denoised, data = LAWS["binary"]
    (finding,) = nd.check_model(in_steps(denoised, 4, factor=0.9), data).findings
    assert "worse than what the data alone say" in finding


def test_a_convention_that_explains_a_part_says_so():
    # Of a mixture in units 127.5 times as large.
    means, data = 127.5 * jnp.asarray(MODES), MODES[RNG.integers(0, 2, 600)] + 0.3 * NORMAL[:, :2]

    def denoised(x, a, s):
        variance = (a * 127.5 * 0.3) ** 2 + s**2
        share = jax.nn.softmax(-0.5 * jnp.sum((x - a * means) ** 2, axis=1) / variance)
        return (x + s**2 * (share @ (a * means - x)) / variance) / a

    findings = nd.check_model(in_steps(denoised, 2), data).findings
    assert any("does not explain all" in text or "No other convention explains it" in text for text in findings)
