"""Densities of points at noise levels, with the operators of the algebra, under conditions and in formulas."""

from __future__ import annotations

from functools import partial

import jax

from ..errors import ScoreOnlyError
from ..pytree import register, replace
from .abstract import AbstractDensity, ConditionalModel
from .algebra import Algebra, Formulated
from .composed import Composed
from .formula import Node, fold, gaussian_of


class Density(Algebra, AbstractDensity):
    """A density p(x, t) for t in [0, 1] under a noise schedule, with the operators of the algebra.

    Subclasses implement `log_density` for one point, and `with_schedule`, and say which of their fields are `data`,
    arrays that JAX may trace, and which are `static`:

        @numpyro_diffusion.pytree.register(data=("mean",), static=("schedule", "event_shape", "name"))
        class Normal(nd.Density):
            def __init__(self, mean, schedule, name=None):
                self.mean, self.schedule, self.event_shape, self.name = mean, schedule, mean.shape, name

            def log_density(self, x, t):
                alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
                return jnp.sum(norm.logpdf(x, alpha * self.mean, jnp.hypot(alpha, sigma)))

            def with_schedule(self, schedule):
                return Normal(self.mean, schedule, self.name)
    """

    @staticmethod
    def formulated(models, conditions, coefficients, formula) -> Expression:
        return Expression(models, conditions, coefficients, formula)

    def under(self, condition, name):
        return Conditional(self, condition, name)  # pyright: ignore[reportArgumentType]


@register(("model", "condition"), ("name",))
class Conditional(Density):
    """p(x | condition) of a `ConditionalModel`, made by its method `given`; what the model has is read through."""

    def __init__(self, model: ConditionalModel, condition: jax.Array, name: str | None):
        self.model, self.condition, self.name = model, condition, name

    def __getattr__(self, name):
        if name.startswith("__") or name == "model":  # asked for by copy and pickle before there is a model
            raise AttributeError(name)
        return getattr(self.model, name)

    # Every density has these, so that `__getattr__` is not asked for them.
    has_log_density = property(lambda self: self.model.has_log_density)  # pyright: ignore[reportAssignmentType]
    is_calibrated = property(lambda self: self.model.is_calibrated)  # pyright: ignore[reportAssignmentType]
    resolution = property(lambda self: self.model.resolution)

    def split(self):
        return self.model, self.condition

    def log_density(self, x, t):
        return self.model.log_density(x, t, self.condition)

    def with_schedule(self, schedule):
        return replace(self, model=self.model.with_schedule(schedule))

    def _moments(self):
        return self.model._moments(self.condition)

    def gaussian(self, t):
        return self.model.gaussian(t, self.condition)

    def _replace(self, **changes):
        return replace(self, model=self.model._replace(**changes))


@register(("models", "conditions", "coefficients"), ("formula", "schedule", "event_shape"))
class Expression(Formulated, Composed, Density):
    """A formula over distinct densities of points, whose operands `Formulated` lists."""

    def __init__(self, models: tuple, conditions: tuple[tuple, ...], coefficients: jax.Array, formula: Node):
        self.models, self.conditions, self.coefficients, self.formula = models, conditions, coefficients, formula
        self.schedule, self.event_shape = models[0].schedule, models[0].event_shape

    @property
    def has_log_density(self):
        return all(model.has_log_density for model in self.models)

    def log_density(self, x, t):
        if not self.has_increments:
            raise ScoreOnlyError(
                f"{self!r} mixes score-only models, whose shares at one point need log densities. Sample it by "
                "nd.Reverse(), which tracks them along each path; or make energies of them with nd.distil."
            )
        return self.value(self.of_leaves(lambda density: density.log_density(x, t)))

    def with_schedule(self, schedule):
        return replace(self, models=tuple(model.with_schedule(schedule) for model in self.models), schedule=schedule)

    def gaussian(self, t):
        gaussians = [(density.gaussian(t), 1.0) for density in self.of_formula()]
        leaves = dict(zip(self.formula.leaves, gaussians, strict=True))
        return fold(self.formula, leaves.__getitem__, partial(gaussian_of, self.coefficients))[0]
