"""LAPACK on one thread, for the sake of JAX's own."""

from __future__ import annotations

import functools
import os
import threading
from collections import Counter
from collections.abc import Callable


@functools.cache
def _libraries() -> list:
    # Slow to import; and SciPy's LAPACK, which JAX calls on CPUs, must be there to be found.
    import scipy.linalg  # noqa: F401
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas").lib_controllers


def _set(library, count: int | None) -> None:
    # The public method lets only the thread that first set a limit set another, and drops what all others ask for;
    # but the last one out may be any thread.
    if count is not None:
        getattr(library, "_real_set_num_threads", library.set_num_threads)(count)


# One limit for all that are inside: the first one in remembers what it finds, the last one out puts it back. Were each
# to do both, the second of two that overlap would remember the first one's limit, and leave it behind.
_LOCK, _INSIDE, _FOUND = threading.Lock(), Counter(), {}


def _key(library) -> tuple[str, int | None]:
    """A library, and the thread that it belongs to where each has a number of threads of its own."""
    is_own = getattr(library, "threading_layer", "") == "openmp" and hasattr(library, "_real_set_num_threads")
    return library.filepath, threading.get_ident() if is_own else None


def _enter(library) -> None:
    key = _key(library)
    if key not in _FOUND:
        _FOUND[key] = library, library.num_threads
        _set(library, 1)
    _INSIDE[key] += 1


def _leave(library) -> None:
    key = _key(library)
    if key not in _FOUND:
        return  # the process was forked in between
    _INSIDE[key] -= 1
    if not _INSIDE[key]:
        _set(*_FOUND.pop(key))


def _forget() -> None:
    """In a forked child, where those inside no longer exist and nobody will release what they hold."""
    global _LOCK
    _LOCK = threading.Lock()
    for (_, thread), found in _FOUND.items():
        if thread in (None, threading.get_ident()):
            _set(*found)
    _INSIDE.clear()
    _FOUND.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def single_threaded_blas[**P, R](function: Callable[P, R]) -> Callable[P, R]:
    """The function, with decompositions and triangular solves on one thread while it runs, in however many threads.

    After a call OpenBLAS's further threads spin for tens of milliseconds, on the cores that the next evaluations need:
    on two cores that costs a run in 64 dimensions a third of its time.
    """

    # Not a context manager's own decorator: warnings point at the first line outside this package.
    @functools.wraps(function)
    def limited(*args: P.args, **kwargs: P.kwargs) -> R:
        libraries = _libraries()
        with _LOCK:
            for library in libraries:
                _enter(library)
        try:
            return function(*args, **kwargs)
        finally:
            with _LOCK:
                for library in libraries:
                    _leave(library)

    return limited
