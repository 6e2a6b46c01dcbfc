"""Densities of points at noise levels with the operators of the algebra, under conditions, seen, and in formulas."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from ..checks.fields import check_instance, check_integers
from ..checks.numbers import is_traced
from ..errors import ScoreOnlyError
from ..pytree import register, replace
from .abstract import AbstractDensity, ConditionalModel, check_density, gaussian_at
from .algebra import Algebra, Formulated
from .canvas import Part, canvas_gaussian, start_gaussian
from .composed import Composed
from .formula import Node, fold, gaussian_of, total_exponents
from .path import Place
from .views import View, ViewOf


class Density(Algebra, AbstractDensity):
    """A density p(x, t) for t in [0, 1] under a noise schedule, with the operators of the algebra.

    Subclasses implement `log_density` for one point, and `with_schedule`, and say which of their fields are `data`,
    arrays that JAX may trace, and which are `static`::

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

    def seen(self, view: ViewOf, event_shape: tuple[int, ...]) -> Density:
        r"""The factor p(A x) of larger points x [*event_shape], of which a view A shows such points as this one is of.

        At every noise level it is read at the noise that the view leaves, see `views`, but never below the smallest of
        its schedule: where that is not zero, views that shrink noise are off for data as narrow as it. Gradients are
        those of x. It is flat in whatever the view does not show, so that only a product of several is a density of x,
        as `nd.tapestry` builds them. In one formula all views of one network are evaluated in one call.

        Args:
            view: `nd.crop(i, j)`, `nd.pool(k)` or `nd.affine(matrix)`.
            event_shape: Shape of x.

        Raises:
            ShapeError: if the view does not show points of this density's shape, or lies outside of x.
            ParameterError: for affine views of which noise is not white, or amplified.
        """
        check_density("density.seen", self)
        check_instance("the view", view, ViewOf, remedy="Make one by nd.crop, nd.pool or nd.affine.")
        whole = check_integers("event_shape", event_shape)
        return self._through(view.of(self.event_shape, whole), whole)

    def _through(self, view: View, event_shape: tuple[int, ...]) -> Density:
        model, condition = self.split()
        if condition is None and isinstance(model, ConditionalModel):
            condition = model.no_condition  # beside others in one call
        return Seen(Sight(model, event_shape, len(view.matrices)), (view, condition), self.name)  # pyright: ignore


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


@register(("model",), ("event_shape", "num_matrices"))
class Sight:
    """A model whose condition is a view, of as many matrices, of points of another shape, and one of its own."""

    def __init__(self, model: Density, event_shape: tuple[int, ...], num_matrices: int):
        self.model, self.event_shape, self.num_matrices = model, event_shape, num_matrices

    schedule = property(lambda self: self.model.schedule)
    has_log_density = property(lambda self: self.model.has_log_density)
    is_calibrated = property(lambda self: self.model.is_calibrated)

    def under(self, condition, name):
        return Seen(self, condition, name)

    def formulated(self, *formula):
        return Expression(*formula)

    def with_schedule(self, schedule):
        return replace(self, model=self.model.with_schedule(schedule))


@register(("model", "condition"), ("name",))
class Seen(Density):
    """p(A x) of a density p and a view A, made by `Density.seen`; `name` is that of p. Normalised over what is seen."""

    def __init__(self, model: Sight, condition: tuple, name: str | None):
        self.model, self.condition, self.name = model, condition, name

    event_shape = property(lambda self: self.model.event_shape)  # pyright: ignore[reportAssignmentType]
    schedule = property(lambda self: self.model.schedule)  # pyright: ignore[reportAssignmentType]
    has_log_density = property(lambda self: self.model.has_log_density)  # pyright: ignore[reportAssignmentType]
    is_calibrated = property(lambda self: self.model.is_calibrated)  # pyright: ignore[reportAssignmentType]
    view = property(lambda self: self.condition[0], doc="How it sees.")

    @property
    def density(self) -> Density:
        """What is seen is a point of this density."""
        model, (_, own) = self.model.model, self.condition
        return model if own is None else model.under(own, self.name)  # pyright: ignore[reportReturnType]

    @property
    def has_increments(self):
        return self.density.has_increments

    @property
    def resolution(self):
        # Less noise than its schedule's at t = 0 a density does not know either.
        least, scale = (self.density.resolution, self.schedule.noise_range[0]), self.view.scale
        return jnp.maximum(*least) / scale if is_traced((least, scale)) else max(least) / float(scale)

    def split(self):
        return self.model, self.condition

    def read(self, x, t):
        """What is seen of a point x at time t, in the density's units, the time there, and the log of the Jacobian."""
        return self.view.read(x, t, self.schedule)

    def log_density(self, x, t):
        z, seen, log_ratio = self.read(x, t)
        return self.density.log_density(z, seen) + log_ratio

    def increment(self, rng_key, start, end):
        (z, seen, log_ratio), (z_to, seen_to, log_ratio_to) = self.read(*start), self.read(*end)
        gain = self.density.increment(rng_key, Place(z, seen), Place(z_to, seen_to))
        return gain + log_ratio_to - log_ratio

    def first_log_density(self, x):
        if self.has_log_density:
            return self.log_density(x, jnp.ones(()))
        z, seen, log_ratio = self.read(x.reshape(self.event_shape), jnp.ones(()))
        return gaussian_at(self.density, seen).log_prob(jnp.ravel(z)) + log_ratio

    def _flow_log_density(self, rng_key, x, t, num_probes):
        z, seen, log_ratio = self.read(x, t)
        found = self.density._flow_log_density(rng_key, z, seen, num_probes)
        return found._replace(log_prob=found.log_prob + log_ratio)

    def gaussian(self, t):
        """None: of what it does not see nothing is known. See `part` for what formulas know."""

    def part(self, t) -> Part | None:
        """The Gaussian that it is like in what it sees of x at time t."""
        gaussian = self.density.gaussian(seen := self.read(jnp.zeros(self.event_shape), t)[1])
        if gaussian is None:
            return None
        unit = self.schedule.alpha(t) / self.schedule.alpha(seen)
        mean = unit * gaussian.mean - self.schedule.alpha(t) * jnp.ravel(self.view.offset)
        return Part(gaussian._replace(mean=mean, variance=unit**2 * gaussian.variance), self.view)

    def with_schedule(self, schedule):
        return replace(self, model=self.model.with_schedule(schedule))

    def _through(self, view, event_shape):
        own, condition = self.condition
        view = own.after(view)
        return Seen(Sight(self.model.model, event_shape, len(view.matrices)), (view, condition), self.name)

    def __repr__(self):
        return f"{self.density!r}@{self.view.name}"


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

    @property
    def is_seen(self) -> bool:
        """Whether some of its leaves are views."""
        return any(isinstance(model, Sight) for model in self.models)

    def _parts_at(self, t) -> list[tuple[Part, jax.Array]]:
        """Gaussians of the leaves, those that have one, and the exponents in all of each, at time t."""

        def part(density) -> Part | None:
            if isinstance(density, Seen):
                return density.part(t)
            gaussian = density.gaussian(t)
            return None if gaussian is None else Part(gaussian, None)

        exponents = total_exponents(self.formula, self.coefficients)
        return [(part, exponents[leaf]) for leaf, part in self.of_leaves(part).items() if part is not None]

    def gaussian(self, t):
        if self.is_seen:
            return canvas_gaussian(self._parts_at(t), self.event_shape)
        gaussians = [(density.gaussian(t), 1.0) for density in self.of_formula()]
        leaves = dict(zip(self.formula.leaves, gaussians, strict=True))
        return fold(self.formula, leaves.__getitem__, partial(gaussian_of, self.coefficients))[0]

    def _first(self):
        exact = start_gaussian(self._parts_at(1.0), self.event_shape) if self.is_seen else None
        return super()._first() if exact is None else exact

    def _through(self, view, event_shape):
        # Of a formula of densities of z the same formula of what sees z: views of one network are then one call.
        models, conditions = [], []
        for model, own in zip(self.models, self.conditions, strict=True):
            seen = [self._leaf_of(model, c)._through(view, event_shape).split() for c in own]
            models.append(seen[0][0])
            conditions.append(tuple(condition for _, condition in seen))
        return replace(self, models=tuple(models), conditions=tuple(conditions), event_shape=event_shape)

    @staticmethod
    def _leaf_of(model, condition):
        return model if condition is None else model.under(condition, None)
