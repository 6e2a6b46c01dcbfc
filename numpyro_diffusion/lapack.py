"""LAPACK on one thread, for the sake of JAX's own."""

from __future__ import annotations

import contextlib
import functools


@functools.cache
def _controller():
    # Slow to import; and SciPy's LAPACK, which JAX calls on CPUs, must be there to be found.
    import scipy.linalg  # noqa: F401
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@contextlib.contextmanager
def single_threaded_lapack():
    """While it lasts, decompositions and triangular solves take one thread; also a decorator.

    After a call OpenBLAS's further threads spin for tens of milliseconds, on the cores that the next evaluations need:
    on two cores that costs a run in 64 dimensions a third of its time.
    """
    with _controller().limit(limits=1, user_api="blas"):
        yield
