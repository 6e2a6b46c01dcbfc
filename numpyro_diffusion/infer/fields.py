"""Extra fields of an `AnnealedMCMC`: one value per draw, under its own names and NumPyro's."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import ParameterError

#: Those always kept.
FIELDS = ("log_weight", "log_density", "acceptance_rate", "is_divergent", "ancestor")
#: NumPyro's names of some, given where they are asked for; a potential energy is minus the log density.
ALIASES = {"potential_energy": "log_density", "accept_prob": "acceptance_rate", "diverging": "is_divergent"}


def asked_for(names: Iterable[str]) -> list[str]:
    """NumPyro's names among those that `run` was asked for.

    Raises:
        ParameterError: for unknown names.
    """
    known = (*FIELDS, *ALIASES)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ParameterError(f"extra_fields must be among {known}; got {unknown[0]!r}.")
    return [name for name in names if name in ALIASES]


def with_aliases(fields: dict, names: list[str]) -> dict:
    """The fields, and those of NumPyro's names whose values there are (a score has no potential energy)."""
    more = {name: fields[ALIASES[name]] for name in names if ALIASES[name] in fields}
    if "potential_energy" in more:
        more["potential_energy"] = -more["potential_energy"]
    return fields | more
