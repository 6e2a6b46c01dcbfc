"""LAPACK on one thread, for the sake of JAX's own."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable


@functools.cache
def _libraries() -> list:
    # Slow to import; and SciPy's LAPACK, which JAX calls on CPUs, must be there to be found.
    import scipy.linalg  # noqa: F401
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas").lib_controllers


def _set(library, count: int) -> None:
    # The public method lets only the thread that first set a limit set another, and drops what all others ask for;
    # but the last one out may be any thread.
    getattr(library, "_real_set_num_threads", library.set_num_threads)(count)


class _Limit:
    """One limit for all that are inside: the first one in remembers what it finds, the last one out puts it back.

    Were each to do both, the second of two that overlap would remember the first one's limit, and leave it behind.
    """

    inside, found = 0, ()

    def enter(self, libraries) -> None:
        if self.inside == 0:
            self.found = tuple((library, library.num_threads) for library in libraries)
            for library, _ in self.found:
                _set(library, 1)
        self.inside += 1

    def leave(self) -> None:
        # Zero already where the process was forked in between.
        self.inside = max(self.inside - 1, 0)
        if self.inside == 0:
            found, self.found = self.found, ()
            for library, count in found:
                if count is not None:
                    _set(library, count)


class _OwnLimit(_Limit, threading.local):
    """The limit of one thread, for libraries that have a number of threads in each."""


_LOCK, _COMMON, _OWN = threading.Lock(), _Limit(), _OwnLimit()


def _limit_of(library) -> _Limit:
    is_own = getattr(library, "threading_layer", "") == "openmp" and hasattr(library, "_real_set_num_threads")
    return _OWN if is_own else _COMMON


def _forget() -> None:
    """In a forked child, where those inside no longer exist and nobody will release what they hold."""
    global _LOCK
    _LOCK = threading.Lock()
    for limit in (_COMMON, _OWN):
        limit.inside = min(limit.inside, 1)
        limit.leave()


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
            for limit in (_COMMON, _OWN):
                limit.enter(library for library in libraries if _limit_of(library) is limit)
        try:
            return function(*args, **kwargs)
        finally:
            with _LOCK:
                _OWN.leave()
                _COMMON.leave()

    return limited
