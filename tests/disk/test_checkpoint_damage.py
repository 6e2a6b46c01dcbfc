"""Damaged, foreign and malicious checkpoint files."""

import os
import pickle
import struct

import numpy as np
import pytest
import safetensors.numpy
from disk.raw import raw

from numpyro_diffusion.disk import checkpoint
from numpyro_diffusion.errors import CheckpointError

# What read refuses


@pytest.mark.slow
def test_every_flipped_bit_is_noticed(small):
    content = small.read_bytes()
    accepted = []
    for position in range(8 * len(content)):
        altered = bytearray(content)
        altered[position // 8] ^= 1 << position % 8
        small.write_bytes(altered)
        try:
            checkpoint.read(small)
        except CheckpointError:
            continue
        accepted.append(position)
    assert accepted == []


def test_every_truncation_is_noticed(small):
    content = small.read_bytes()
    for length in range(len(content)):
        small.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match="take a fresh copy"):
            checkpoint.read(small)


def test_appended_bytes_are_noticed(small):
    small.write_bytes(small.read_bytes() + b"\0")
    with pytest.raises(CheckpointError, match="arrays cannot be read"):
        checkpoint.read(small)


@pytest.mark.parametrize(
    ("old", "new"),
    [(b'\\"energy\\"', b'\\"oracle\\"'), (b'"w"', b'"v"'), (b'"F32"', b'"I32"'), (b"[2,3]", b"[3,2]")],
    ids=["config", "name", "dtype", "shape"],
)
def test_header_edited_by_hand_is_noticed(small, old, new):
    content = small.read_bytes()
    assert content.count(old) == 1
    small.write_bytes(content.replace(old, new))
    with pytest.raises(CheckpointError, match="does not match its sha256"):
        checkpoint.read(small)


def test_foreign_safetensors_file(path):
    safetensors.numpy.save_file({"w": np.zeros(3)}, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="not a checkpoint of numpyro_diffusion"):
        checkpoint.read(path)


def test_newer_format_version(path):
    metadata = {"format": "numpyro_diffusion", "format_version": "2"}
    path.write_bytes(raw({"__metadata__": metadata}))
    with pytest.raises(CheckpointError, match=r"version '2'.*reads '1'.*Update"):
        checkpoint.read(path)


def test_pickle_is_not_executed(path, tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    path.write_bytes(pickle.dumps(Trap()) * 3)
    with pytest.raises(CheckpointError):
        checkpoint.read(path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("length", [0, 1, 60, 10**8 + 1, 2**40, 2**63, 2**64 - 1])
def test_absurd_header_length(path, length):
    path.write_bytes(struct.pack("<Q", length) + b"{}" + b" " * 50)
    with pytest.raises(CheckpointError, match="cannot hold a header"):
        checkpoint.read(path)


def test_header_above_the_limit_is_refused_before_it_is_read(path):
    length = checkpoint.MAX_HEADER_BYTES + 1
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", length))
        file.truncate(8 + length)  # sparse: takes no space
    with pytest.raises(CheckpointError, match="at most 100000000"):
        checkpoint.read(path)


def entry(start, end):
    return {"dtype": "F32", "shape": [1], "data_offsets": [start, end]}


@pytest.mark.parametrize(
    "content",
    [
        raw(b"\xff\xfe not json"),
        raw(b"[1, 2]"),
        raw(b"[" * 100_000),
        raw({"w": 3}),
        raw({"w": {"data_offsets": "ab"}}),
        raw({"w": {"data_offsets": [0]}}),
        raw({"w": entry(0, -4)}),
        raw({"w": entry(0, 2**62)}),
        raw({"w": entry(0, 4)}, b"1234"),
        raw({"__metadata__": {"format": "numpyro_diffusion", "format_version": "1"}}),
        raw({"__metadata__": {"format": "numpyro_diffusion", "format_version": "1", "config": 3, "sha256": ""}}),
        raw({"__metadata__": {"format": "numpyro_diffusion", "format_version": "1", "config": "3", "sha256": ""}}),
        raw({"__metadata__": {"format": "numpyro_diffusion", "format_version": "1", "config": "{}", "sha256": ""}}),
        b"",
        b"PK\x03\x04" + b"\0" * 100,
    ],
)
def test_malformed_files(path, content):
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="density.safetensors"):
        checkpoint.read(path)


def test_overlapping_arrays(small):
    header = {"__metadata__": {"format": "numpyro_diffusion", "format_version": "1", "config": "{}", "sha256": ""}}
    header |= {"a": entry(0, 4), "b": entry(0, 4)}
    small.write_bytes(raw(header, b"1234"))
    with pytest.raises(CheckpointError, match="arrays cannot be read"):
        checkpoint.read(small)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(CheckpointError, match=r"absent.*Check the path"):
        checkpoint.read(tmp_path / "absent")
    with pytest.raises(CheckpointError, match="regular file"):
        checkpoint.read(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_refused_and_not_waited_for(path):
    os.mkfifo(path)
    with pytest.raises(CheckpointError, match="regular file"):
        checkpoint.read(path)


def test_kind(small, path):
    assert checkpoint.read(small, kind="energy")[1]["kind"] == "energy"
    with pytest.raises(CheckpointError, match="must hold kind 'score'; it holds 'energy'"):
        checkpoint.read(small, kind="score")
    checkpoint.write(path, {}, {})
    with pytest.raises(CheckpointError, match="it holds None"):
        checkpoint.read(path, kind="score")
