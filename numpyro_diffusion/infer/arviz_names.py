"""Names of sites and axes as ArviZ and xarray take them, and the handler that gives a model such names."""

from __future__ import annotations

from collections.abc import Iterable

import jax.numpy as jnp
from numpyro.primitives import Messenger

#: Dimensions of all draws, which no site and no plate can be called.
RESERVED = ("chain", "draw", "sample")


def readable(names: Iterable[str]) -> dict[str, str]:
    """Names that can stand in a DataTree, by site: "a.x" for "a/x", "chain_" for "chain", and no two alike."""
    found: dict[str, str] = {}
    # Those that can stay come first.
    for name in sorted(names, key=lambda name: plain(name) != name):
        found[name] = _free(plain(name), found.values())
    return found


def plain(name: str) -> str:
    """A name without what a DataTree cannot hold."""
    name = name.replace("/", ".")
    return f"{name}_" if name in RESERVED else name


def _free(name: str, taken) -> str:
    while name in taken:
        name += "_"
    return name


class named(Messenger):
    """Give every site and every axis a name for ArviZ: axes are named after plates where there are some.

    ArviZ puts the plates' names first, without regard to plates that leave axes between them, to time axes of `scan`
    and to event dimensions; so the names are all handed over as event dimensions. Of one name, axes have one size.

    Args:
        fn: Model.
        names: Readable names by site; others are made readable.
    """

    def __init__(self, fn=None, names: dict[str, str] | None = None):
        self.names = {} if names is None else names
        self.sizes: dict[str, int] = {}
        super().__init__(fn)

    def __enter__(self):
        self.sizes = {}
        return super().__enter__()

    def process_message(self, msg):
        if msg["type"] not in ("sample", "deterministic"):
            return
        shape = jnp.shape(msg["value"]) if msg["value"] is not None else msg["fn"].shape()
        name = self.names.get(msg["name"]) or plain(msg["name"])
        msg["infer"] = {**(msg.get("infer") or {}), "event_dims": self._axes(name, shape, _given(msg, shape))}
        msg["cond_indep_stack"], msg["name"] = [], name

    def _axes(self, name, shape, given) -> list[str]:
        axes: list[str] = []
        # Default names are numbered like ArviZ's own, which counts unnamed axes only.
        unnamed = 0
        for size, axis in zip(shape, given, strict=True):
            if axis is None:
                axis, unnamed = f"{name}_dim_{unnamed}", unnamed + 1
            axis = _free(plain(axis), [*axes, *self.names.values()])
            if self.sizes.setdefault(axis, size) != size:
                axis = _free(f"{name}_{axis}", axes)
            axes.append(axis)
        return axes


def _given(msg, shape) -> list[str | None]:
    """Names of a site's axes: its plates', and those of `infer={"event_dims": [...]}`."""
    frames, given = msg["cond_indep_stack"], list((msg.get("infer") or {}).get("event_dims", []))
    names: list[str | None] = [None] * len(shape)
    if msg["type"] == "sample":
        batch = len(shape) - msg["fn"].event_dim
    else:
        batch = max((-frame.dim for frame in frames), default=0)
    for frame in frames:
        if 0 <= batch + frame.dim < len(shape) and shape[batch + frame.dim] == frame.size:
            names[batch + frame.dim] = frame.name
    if given and len(given) == len(shape) - batch:
        names[batch:] = given
    return names
