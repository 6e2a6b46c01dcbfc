r"""A bounded potential of small images, made of patches: few weights, shared over the image, for few data.

Grey values pile up at black and at white. What matters about a pixel is how far it is from either, in units of the
noise, and what matters about an image is local: with z the distance of a pixel from a limit and
:math:`\tau^2 = r^2 + \delta^2`,

.. math::
    f_{ij} = \tanh \frac{z_i - c_j \tau}{\kappa_j \tau}, \qquad
    \varphi(x, r) = \sum_i w_i(r) \cdot f_i + v(r) \cdot \tanh(W f_{\mathrm{patch}(i)} + p_i + q(r)),

a sum over pixels i of potentials of the pixel itself and of its neighbourhood. The kernel W is common to all pixels,
the offsets p_i are not. All parts are bounded, and so the tails are those of the base that phi tilts.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from .embedding import fourier, neighbours

#: Centres c_j of the features in units of tau: fine at the limit, coarse away from it.
CENTRES = (0.0, 1.5, 3.0, 6.0, 12.0, 24.0)


class PatchPotential(nnx.Module):
    """phi(x, r, c) of one image x [d]; zero at the start. See the module for the formula.

    `config` is a `PatchConfig`, and d the product of its grid.
    """

    def __init__(self, config, *, rngs):
        self.grid, self.patch_size, self.limits = config.grid, config.patch_size, config.limits
        self.resolution, width, embedding_size = config.resolution, config.width, config.embedding_size
        pixels, features = self.grid[0] * self.grid[1], 2 * len(CENTRES)
        patch, embedded = self.patch_size**2 * features, embedding_size + 1

        def normal(*shape, scale=1.0):
            return nnx.Param(scale * jax.random.normal(rngs.params(), shape))

        self.frequencies = normal(embedding_size // 2, scale=3.0)
        self.pixel = nnx.Param(jnp.zeros((embedded, pixels * features)))
        self.kernel = normal(patch, width, scale=patch**-0.5)
        self.place = normal(pixels, width, scale=0.3)
        self.level = normal(embedded, width, scale=0.1)
        self.head = nnx.Param(jnp.zeros((embedded, width)))

    def __call__(self, x, r, c):
        embedding = jnp.append(fourier(self.frequencies, c), 1.0)
        low, high = self.limits
        centres = np.asarray(CENTRES)
        tau = jnp.sqrt(r**2 + self.resolution**2)
        z = jnp.stack([x - low, high - x], axis=-1)[..., None]
        f = jnp.tanh((z / tau - centres) / np.maximum(1.0, centres / 2)).reshape(x.size, -1)
        patches = jnp.concatenate(neighbours(f.reshape(*self.grid, -1), self.patch_size), -1).reshape(x.size, -1)
        h = jnp.tanh(patches @ self.kernel[...] + self.place[...] + embedding @ self.level[...])
        alone = jnp.sum(f.reshape(-1) * (embedding @ self.pixel[...]))
        return alone + jnp.sum(h, axis=0) @ (embedding @ self.head[...])
