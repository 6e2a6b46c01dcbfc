"""Convolutions and their written-out gradients."""

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_diffusion.networks import convolution


def test_gradients_written_out_are_those_of_the_convolution():
    kernel, x = jax.random.normal(jax.random.key(0), (3, 3, 2, 4)), jax.random.normal(jax.random.key(1), (5, 6, 2))

    def both(kernel, x):
        return jnp.sum(jnp.sin(convolution.convolve(kernel, x)))

    ours = jax.grad(both, (0, 1))(kernel, x)
    with convolution.native_gradients():
        native = jax.grad(both, (0, 1))(kernel, x)
    for a, b in zip(ours, native, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_gradients_of_the_gradients_written_out_are_those_of_the_convolution():
    # Energies are trained by gradients of gradients. A convolution is linear in the image, W x, and in the kernel: the
    # second derivatives of |W x|^2 / 2 are matrices that two more convolutions give, here with float64's rounding.
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        kernel, x = jnp.asarray(rng.normal(size=(3, 3, 2, 4))), jnp.asarray(rng.normal(size=(5, 6, 2)))

        def energy(kernel, x):
            return 0.5 * jnp.sum(convolution.convolve(kernel, x) ** 2)

        def hessian_of():
            return jax.jit(jax.jacrev(jax.grad(energy, (0, 1)), (0, 1)))(kernel, x)

        hessian = hessian_of()
        with convolution.native_gradients():
            native = hessian_of()
            in_x = jax.vmap(lambda e: convolution.convolve(kernel, e).ravel())(jnp.eye(x.size).reshape(-1, *x.shape))
            in_kernel = jax.vmap(lambda e: convolution.convolve(e, x).ravel())(
                jnp.eye(kernel.size).reshape(-1, *kernel.shape)
            )
        assert x.dtype == hessian[0][0].dtype == jnp.float64
        np.testing.assert_allclose(hessian[1][1].reshape(x.size, x.size), in_x @ in_x.T, atol=1e-10)
        np.testing.assert_allclose(hessian[0][0].reshape(kernel.size, kernel.size), in_kernel @ in_kernel.T, atol=1e-10)
        for ours, expected in zip(jax.tree.leaves(hessian), jax.tree.leaves(native), strict=True):
            np.testing.assert_allclose(ours, expected, atol=1e-10)
