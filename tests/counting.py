"""How many programs XLA compiles while something runs."""

import contextlib

import jax

_events: list[str] = []
jax.monitoring.register_event_duration_secs_listener(lambda name, seconds, **_: _events.append(name))


@contextlib.contextmanager
def compilations():
    """A list of the programs that are compiled while it lasts, or fetched from the cache on disk."""
    found, before = [], len(_events)
    yield found
    found += [name for name in _events[before:] if name.endswith("backend_compile_duration")]
