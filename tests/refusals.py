"""How bad input is refused: by a typed error of this package that names the rule, the value and the remedy."""

import pytest

from numpyro_diffusion.errors import DiffusionError


def refusals(cases):
    """The marker of a test of (call, error, words) by name."""
    return pytest.mark.parametrize(("call", "error", "words"), cases.values(), ids=cases)


def assert_refused(call, error, words):
    """The call raises an error of that type, the built-in one often, which is also one of ours."""
    with pytest.raises(error, match=f"(?s){words}") as caught:
        call()
    assert isinstance(caught.value, DiffusionError)


def assert_short(call):
    """The call raises an error of ours whose text can be read at a glance."""
    with pytest.raises(DiffusionError) as caught:
        call()
    assert 10 < len(str(caught.value)) < 400 and str(caught.value).isprintable()
