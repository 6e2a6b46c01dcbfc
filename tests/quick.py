"""Parametrised tests of which a few cases are quick."""

import pytest


def quick_among(cases, quick):
    """The cases in their order; all but the quick ones are marked slow."""
    assert set(quick) <= set(cases), "a quick case that is none"
    return [case if case in quick else slow(case) for case in cases]


def slow(case):
    """One case, a tuple of arguments or a single one, that is marked slow."""
    return pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow)
