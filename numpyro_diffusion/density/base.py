"""What trained densities stand on: the data's Gaussian, and for calibrated energies what follows a condition."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from ..errors import ParameterError, ShapeError
from .axes import CosineAxes, DenseAxes
from .gaussian import Gaussian
from .mixture import MixtureBase
from .regression import RegressionBase

Base = MixtureBase | RegressionBase
BASES = (MixtureBase, RegressionBase)


def data_gaussian(mean, covariance, config, base: Base | None = None) -> Gaussian:
    """The data's Gaussian, of the variances along cosines [d] for images, of the covariance [d, d] else."""
    mean, covariance = np.ravel(mean), np.asarray(covariance, dtype=np.float64)
    if config.takes_images:
        variance, axes = covariance.reshape(mean.size), CosineAxes(config.shape)
    else:
        covariance = covariance.reshape(mean.size, mean.size)
        # A mixture has no axes of its own: the data's stay, and y is centred only.
        is_mixture = isinstance(base, MixtureBase)
        variance, vectors = (np.diag(covariance), np.eye(mean.size)) if is_mixture else np.linalg.eigh(covariance)
        axes = DenseAxes(jnp.asarray(vectors, dtype=float))
    variance = np.maximum(variance, 1e-8 * variance.max())
    return Gaussian(jnp.asarray(mean, dtype=float), jnp.asarray(variance, dtype=float), axes)


def check_base(density) -> None:
    """Raise ParameterError or ShapeError unless a density's base fits its form, its data and its conditions."""
    base, config, is_energy, size = density.base, density.config, density.has_log_density, density.mean.size
    form, is_mixture = density.parameterisation, isinstance(base, MixtureBase)
    if form == "residual" and (base is not None or not density.is_calibrated):
        what = f"a {type(base).__name__}" if density.is_calibrated else "calibrated=False"
        raise ParameterError(f"a residual energy stands on one Gaussian; got {what}. Take parameterisation='l2'.")
    if form != "residual" and getattr(config, "scalar_outputs", 0):
        raise ParameterError(f"scalar_outputs belong to parameterisation='residual'; got {form!r}. Leave them out.")
    if config.form == "potential" and not is_mixture:
        what = "none" if base is None else f"a {type(base).__name__}"
        raise ParameterError(f"a PatchConfig stands on a mixture; got {what}. Give base=nd.MixtureBase.fit(...).")
    if base is None:
        return
    if not (is_energy and density.is_calibrated):
        what = "density with calibrated=False" if is_energy else "score model"
        raise ParameterError(f"a base belongs to a calibrated energy; got a {what}. Drop the base.")
    if base.size != size:
        raise ShapeError(f"the base must have the data's dimension {size}; got {base.size}. Fit it to them.")
    known = config.condition_size if config.text is None else 0
    if isinstance(base, RegressionBase):
        if config.takes_images:
            raise ParameterError("a RegressionBase belongs to vectors; got a network of images. Drop the base.")
        if base.condition_size != known:
            raise ShapeError(
                f"the base must know the data's {known} numbers; got {base.condition_size}. Give the same conditions "
                "to RegressionBase.fit and nd.fit."
            )
    elif base.condition_size not in (0, known):
        raise ShapeError(
            f"the base must know the data's {known} classes or none; got {base.condition_size}. "
            "Give the same conditions to MixtureBase.fit and nd.fit."
        )
