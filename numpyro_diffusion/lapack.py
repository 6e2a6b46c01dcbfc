"""LAPACK on one thread, for the sake of JAX's own."""

from __future__ import annotations

import functools
from collections.abc import Callable


@functools.cache
def _controller():
    # Slow to import; and SciPy's LAPACK, which JAX calls on CPUs, must be there to be found.
    import scipy.linalg  # noqa: F401
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def single_threaded_lapack[**P, R](function: Callable[P, R]) -> Callable[P, R]:
    """The function, with decompositions and triangular solves on one thread while it runs.

    After a call OpenBLAS's further threads spin for tens of milliseconds, on the cores that the next evaluations need:
    on two cores that costs a run in 64 dimensions a third of its time.
    """

    # Not a context manager's own decorator: warnings point at the first line outside this package.
    @functools.wraps(function)
    def limited(*args: P.args, **kwargs: P.kwargs) -> R:
        with _controller().limit(limits=1, user_api="blas"):
            return function(*args, **kwargs)

    return limited
