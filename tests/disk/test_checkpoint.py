"""A checkpoint comes back as it went in, replaces its predecessor entirely or not at all, and is refused if altered."""

import errno
import os

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from numpyro_diffusion.disk import checkpoint
from numpyro_diffusion.errors import CheckpointError, ParameterError

CONFIG = {
    "kind": "energy",
    "width": 128,
    "data_std": 0.5,
    "name": 'ring "é"',
    "levels": [1.0, 0.5],
    "nested": {"a": None},
}


ARRAYS = {
    "float64": np.linspace(-1.0, 1.0, 5),
    "float32": np.arange(6, dtype=np.float32).reshape(2, 3),
    "float16": np.array([0.5, -2.0], dtype=np.float16),
    "bfloat16": np.array([[1.5, -0.25]], dtype=ml_dtypes.bfloat16),
    "int64": np.array([-(2**60), 2**60]),
    "int32": np.array([[[1]]], dtype=np.int32),
    "uint32": np.array([2**32 - 1], dtype=np.uint32),
    "uint8": np.arange(4, dtype=np.uint8),
    "bool": np.array([True, False]),
    "scalar": np.float32(3.25),
    "python_scalar": 2.5,
    "empty": np.zeros((0, 3)),
    "transposed": np.arange(6.0).reshape(2, 3).T,
    "strided": np.arange(10)[::-2],
    "big_endian": np.arange(3, dtype=">f8"),
    "jax": jnp.arange(3.0),
    "jax_bfloat16": jnp.ones((2,), jnp.bfloat16),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_array_comes_back(path, name):
    checkpoint.write(path, {name: ARRAYS[name]}, {})
    arrays, config = checkpoint.read(path)
    expected = np.asarray(ARRAYS[name])
    assert config == {} and list(arrays) == [name]
    assert arrays[name].shape == expected.shape
    assert arrays[name].dtype == expected.dtype.newbyteorder("<")
    np.testing.assert_array_equal(arrays[name], expected)


def test_all_arrays_and_config_come_back(path):
    checkpoint.write(path, ARRAYS, CONFIG)
    arrays, config = checkpoint.read(path, kind="energy")
    assert config == CONFIG and list(config) == list(CONFIG)
    assert set(arrays) == set(ARRAYS)
    for name, value in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], np.asarray(value))


def test_no_arrays_at_all(path):
    checkpoint.write(path, {}, CONFIG)
    assert checkpoint.read(path) == ({}, CONFIG)


def test_other_tools_can_read_it(small):
    np.testing.assert_array_equal(safetensors.numpy.load_file(small)["b"], [1, 2])


def test_tuples_come_back_as_lists(path):
    checkpoint.write(path, {}, {"shape": (2, 3)})
    assert checkpoint.read(path)[1] == {"shape": [2, 3]}


# What write refuses


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, ml_dtypes.bfloat16])
def test_non_finite_arrays_are_refused(path, bad, dtype):
    with pytest.raises(ParameterError, match="'w' must be finite; 1 of its 3 values"):
        checkpoint.write(path, {"w": np.array([0.0, bad, 1.0], dtype=dtype)}, {})
    assert not path.exists()


@pytest.mark.parametrize(
    "value",
    [
        np.array(["text"]),
        np.array([object()]),
        np.array([1j]),
        np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f4")]),
        np.array(["2020-01-01"], dtype="datetime64[D]"),
        [[1.0], [1.0, 2.0]],
        None,
    ],
    ids=["text", "object", "complex", "structured", "date", "ragged", "none"],
)
def test_what_is_no_number_is_refused(path, value):
    with pytest.raises(ParameterError, match="'w' must"):
        checkpoint.write(path, {"w": value}, {})
    assert not path.exists()


def test_typed_keys_are_refused_with_the_remedy(path):
    with pytest.raises(ParameterError, match="key_data"):
        checkpoint.write(path, {"rng_key": jax.random.key(0)}, {})


@pytest.mark.parametrize("name", ["", "__metadata__", 3])
def test_bad_names_are_refused(path, name):
    with pytest.raises(ParameterError, match="array names must be text"):
        checkpoint.write(path, {name: np.zeros(1)}, {})


@pytest.mark.parametrize("config", [{"a": float("nan")}, {"a": np.zeros(2)}, {"a": object()}, {(1, 2): 3}, 7])
def test_config_that_json_cannot_hold_is_refused(path, config):
    with pytest.raises(ParameterError, match="config must be"):
        checkpoint.write(path, {}, config)


# Entirely or not at all


def failing(number):
    def fail(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("function", ["fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_failed_write_leaves_the_previous_file(small, monkeypatch, function, number):
    before = small.read_bytes()
    monkeypatch.setattr(os, function, failing(number))
    with pytest.raises(CheckpointError, match="intact") as caught:
        checkpoint.write(small, {"w": np.ones(1000)}, {})
    monkeypatch.undo()
    assert str(small) in str(caught.value) and os.strerror(number) in str(caught.value)
    assert small.read_bytes() == before
    assert os.listdir(small.parent) == [small.name]


def test_interrupt_leaves_the_previous_file_and_no_temporary_one(small, monkeypatch):
    before = small.read_bytes()

    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.write(small, {"w": np.ones(1000)}, {})
    assert small.read_bytes() == before
    assert os.listdir(small.parent) == [small.name]


def test_the_file_is_synced_before_it_takes_the_name(small, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda *args: (calls.append("fsync"), fsync(*args)))
    monkeypatch.setattr(os, "replace", lambda *args: (calls.append("replace"), replace(*args)))
    checkpoint.write(small, {}, {})
    assert calls == ["fsync", "replace", "fsync"]


def test_a_folder_that_cannot_be_synced_is_no_failure(small, monkeypatch):
    monkeypatch.setattr(os, "open", failing(errno.EACCES))
    checkpoint.write(small, {}, {"new": True})
    monkeypatch.undo()
    assert checkpoint.read(small)[1] == {"new": True}


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"absent.*folder exists"):
        checkpoint.write(tmp_path / "absent" / "x", {}, {})


def test_a_folder_is_not_overwritten(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(CheckpointError, match="cannot write"):
        checkpoint.write(folder, {}, {})
    assert os.listdir(tmp_path) == ["folder"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder(small):
    before = small.read_bytes()
    small.parent.chmod(0o500)
    try:
        with pytest.raises(CheckpointError, match="intact"):
            checkpoint.write(small, {}, {})
        assert small.read_bytes() == before
    finally:
        small.parent.chmod(0o700)


def test_a_link_stays_a_link(small, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(small)
    checkpoint.write(link, {}, {"new": True})
    assert link.is_symlink() and checkpoint.read(small)[1] == {"new": True}


def test_another_kind_of_file_is_not_written_over(path):
    checkpoint.write(path, {}, {"kind": "training"})
    with pytest.raises(CheckpointError, match="of kind 'training', that would be lost"):
        checkpoint.save(path, {}, {"kind": "density"}, lambda *given: None)
    checkpoint.write(path, {}, {"kind": "density", "old": True})
    checkpoint.save(path, {}, {"kind": "density"}, lambda *given: None)
    assert checkpoint.read(path)[1] == {"kind": "density"}
