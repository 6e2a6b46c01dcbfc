"""A run's state comes back bit for bit, in its time, and only to the run it belongs to."""

import numpy as np
import pytest

from numpyro_diffusion.disk import runs
from numpyro_diffusion.errors import CheckpointError, ParameterError

IDENTITY = {"kind": "test", "shape": (2, 3)}
ARRAYS = {
    "weights": np.array([np.inf, -np.inf, np.nan, 0.1]), "half": np.array([0.5], np.float16), "count": np.array(3),
    "left": np.array([True, False]),
}  # fmt: skip


def keeper(path, identity=IDENTITY, every=0.0):
    return runs.Keeper(path, identity, every)


def test_every_bit_comes_back(path):
    keeper(path).keep(lambda *state: state, ARRAYS, {"collapsed": True}, now=True)
    arrays, facts = keeper(path).load(lambda *found: found)
    assert facts == {"collapsed": True} and arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype and arrays[name].tobytes() == array.tobytes()


def test_nothing_is_kept_before_its_time_or_without_a_file(path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(runs.time, "monotonic", lambda: now[0])
    kept, states = keeper(path, every=10.0), []

    def packed(number):
        states.append(number)
        return {}, {"number": number}

    for number in range(5):
        now[0] = 6.0 * number
        kept.keep(packed, number)
    assert states == [2, 4]
    kept.keep(packed, 5, now=True)
    assert keeper(path).load(lambda _, facts: facts) == {"number": 5}
    keeper(None).keep(packed, 6, now=True)
    assert (
        states == [2, 4, 5]
        and keeper(None).load(packed) is None
        and keeper(path.with_name("none")).load(packed) is None
    )


def test_files_of_others_are_refused(path):
    keeper(path).keep(lambda: ({}, {}), now=True)
    with pytest.raises(CheckpointError, match="other shape"):
        keeper(path, IDENTITY | {"shape": (2, 4)}).load(lambda *_: None)
    with pytest.raises(CheckpointError, match="must hold kind"):
        keeper(path, IDENTITY | {"kind": "other"}).load(lambda *_: None)
    for make in (lambda arrays, _: arrays["w"], lambda *_: int("x"), lambda *_: [][0]):
        with pytest.raises(CheckpointError, match="does not describe a run .*Choose another checkpoint_path"):
            keeper(path).load(make)
    with pytest.raises(ParameterError, match="checkpoint_path must be a path"):
        keeper(3)
