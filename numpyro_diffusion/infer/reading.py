"""What `az.from_numpyro(mcmc)` reads of an `AnnealedMCMC`, without importing ArviZ before it is there."""

from __future__ import annotations

import abc
import sys
from typing import Any


def asked_by_arviz() -> bool:
    """Whether the method or property that asks is called by ArviZ's converter.

    ArviZ takes adapters of other inference objects than its own two and treats all else as one. An adapter has `model`
    and `get_samples` as well, but of samples [chain, draw, ...], where NumPyro's are flat.
    """
    return sys._getframe(2).f_globals.get("__name__") == "arviz_base.io_numpyro"


class ReadByArviZ(abc.ABC):
    """The attributes of ArviZ's adapters, those of `arviz_adapter()`."""

    _model: Any

    @abc.abstractmethod
    def arviz_adapter(self) -> Any:
        """The adapter that ArviZ reads."""

    @property
    def model(self) -> Any:
        """The NumPyro model."""
        return self.arviz_adapter().model if asked_by_arviz() else self._model

    @model.setter
    def model(self, model):
        self._model = model

    @property
    def sample_dims(self) -> list[str]:
        """The dimensions that draws have in ArviZ: chain and draw."""
        return self.arviz_adapter().sample_dims

    @property
    def sample_shape(self) -> tuple[int, int]:
        """Chains and draws in ArviZ: islands of particles, see `islands`."""
        return self.arviz_adapter().sample_shape

    @property
    def _args(self):
        return self.arviz_adapter()._args

    @property
    def _kwargs(self):
        return self.arviz_adapter()._kwargs

    def get_sample_stats(self) -> dict[str, Any]:
        """One value per draw [chain, draw], under ArviZ's names."""
        return self.arviz_adapter().get_sample_stats()
