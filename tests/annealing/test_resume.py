"""Annealed runs that stop half way: killed, interrupted, or refused a place to write."""

import os
import signal
import sys

import jax
import numpy as np
import pytest
from densities import mixture

import numpyro_diffusion as nd
from numpyro_diffusion.annealing import advance as onward
from numpyro_diffusion.annealing import settings as in_memory
from numpyro_diffusion.annealing.history import History
from numpyro_diffusion.disk.runs import Interrupt, sole_writer
from numpyro_diffusion.errors import CheckpointError, DiagnosticWarning, ParameterError

KEY, LEVELS = jax.random.key(0), 6


class Killed(BaseException):
    """Stands for what ends a process."""


SETTINGS = {"num_chains": 16, "levels": LEVELS, "progress_bar": False, "checkpoint_every_seconds": 0.0}


def anneal(**changes):
    return nd.anneal(KEY, mixture(), nd.HMC(step_size=0.6), **SETTINGS | changes)


def stop_at(monkeypatch, level, error):
    """The level, counted from 1, fails once."""
    original, calls = onward.advance, []

    def advance(*args, **kwargs):
        calls.append(None)
        if len(calls) == level:
            raise error
        return original(*args, **kwargs)

    monkeypatch.setattr(onward, "advance", advance)


def assert_equal(found, expected):
    for name in ("samples", "log_weights", "ancestors", "levels"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    for name in ("log_evidence", "log_evidence_error"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    for name, values in expected.stats.items():
        np.testing.assert_array_equal(found.stats[name], values, err_msg=name)
        assert found.stats[name].dtype == values.dtype
    for name, values in (expected.history or {}).items():
        np.testing.assert_array_equal(np.asarray(found.history[name]), values, err_msg=name)


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize("level", [1, 2, LEVELS])
@pytest.mark.parametrize("where", ["memory", "zarr"])
def test_a_killed_run_ends_bit_for_bit_as_an_uninterrupted_one(tmp_path, monkeypatch, level, where):
    expected = anneal(keep_history=True)
    history = True if where == "memory" else tmp_path / "history.zarr"
    settings = {"checkpoint_path": tmp_path / "run", "keep_history": history}
    with monkeypatch.context() as patch:
        stop_at(patch, level, Killed())
        with pytest.raises(Killed):
            anneal(**settings)
    assert_equal(anneal(**settings), expected)
    if where == "memory":
        assert_equal(anneal(**settings), expected)  # a finished run is read back


@pytest.mark.slow
def test_levels_are_not_placed_anew(tmp_path, monkeypatch):
    settings = {"levels": None, "checkpoint_path": tmp_path / "run"}
    expected = anneal(levels=None)
    with monkeypatch.context() as patch:
        stop_at(patch, 2, Killed())
        with pytest.raises(Killed):
            anneal(**settings)
    monkeypatch.setattr(sys.modules["numpyro_diffusion.annealing.anneal"], "planned", None)
    assert_equal(anneal(**settings), expected)


@pytest.mark.parametrize("piece", [None, 2])
def test_pieces_are_those_that_the_run_began_with(tmp_path, monkeypatch, piece):
    # What fits into memory, and so how many chains make a piece, is another number on another day.
    settings = {"checkpoint_path": tmp_path / "run"}
    with monkeypatch.context() as patch:
        patch.setattr(in_memory, "default_batch_size", lambda *_: 8)
        expected = anneal()
        stop_at(patch, 3, Killed())
        with pytest.raises(Killed):
            anneal(**settings)
    found = anneal(**settings, chain_batch_size=piece)
    if piece is None:
        assert_equal(found, expected)
    else:
        np.testing.assert_allclose(found.log_evidence, expected.log_evidence, atol=0.3)
    assert_equal(anneal(**settings, chain_batch_size=16), found)  # read back


def test_an_interrupt_leaves_what_there_is(tmp_path, monkeypatch):
    settings = {"checkpoint_path": tmp_path / "run", "keep_history": True}
    with monkeypatch.context() as patch:
        stop_at(patch, 4, KeyboardInterrupt())
        with pytest.warns(DiagnosticWarning, match="interrupted after level 3 of 6.*same arguments"):
            partial = anneal(**settings)
    assert not partial.is_complete
    assert len(partial.levels) == len(partial.stats["ess"]) == len(partial.history["acceptance_rate"]) == 3
    assert partial.samples.shape == (16, 2) and np.isfinite(partial.log_evidence)
    assert partial.levels[-1] > 0
    whole = anneal(**settings)
    assert whole.is_complete
    assert_equal(whole, anneal(keep_history=True))


def test_an_interrupt_before_the_first_level_has_nothing_to_leave(monkeypatch):
    stop_at(monkeypatch, 1, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        anneal()


@pytest.mark.parametrize(
    "changes, name", [({"num_steps": 3}, "num_steps"), ({"levels": 7}, "levels"), ({"num_chains": 8}, "num_chains")]
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, changes, name):
    anneal(checkpoint_path=tmp_path / "run")
    with pytest.raises(CheckpointError, match=f"other {name}"):
        anneal(checkpoint_path=tmp_path / "run", **changes)


def test_a_damaged_checkpoint_is_refused(tmp_path):
    path = tmp_path / "run"
    anneal(checkpoint_path=path)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="sha256"):
        anneal(checkpoint_path=path)


def test_two_runs_do_not_share_a_file(tmp_path):
    path = tmp_path / "run"
    with sole_writer(path), pytest.raises(CheckpointError, match="another run is writing"):
        anneal(checkpoint_path=path)
    anneal(checkpoint_path=path)
    assert os.listdir(tmp_path) == ["run"]


def test_a_missing_folder_is_told_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["numpyro_diffusion.annealing.anneal"], "planned", None)
    with pytest.raises(CheckpointError, match="cannot write beside"):
        anneal(checkpoint_path=tmp_path / "none" / "run")


def test_a_history_folder_is_not_overwritten(tmp_path):
    anneal(keep_history=tmp_path / "h")
    with pytest.raises(ParameterError, match="exists already"):
        anneal(keep_history=tmp_path / "h")


def test_a_second_interrupt_ends_at_once(interruptible):
    with pytest.raises(KeyboardInterrupt), Interrupt() as interrupt:
        signal.raise_signal(signal.SIGINT)
        assert interrupt.asked
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_between_a_row_of_history_and_the_end_of_its_level(tmp_path, monkeypatch):
    original, settings = History.add, {"checkpoint_path": tmp_path / "run", "keep_history": tmp_path / "h"}

    def add(self, chains):
        original(self, chains)
        if self.group["acceptance_rate"].shape[0] == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(History, "add", add)
        with pytest.warns(DiagnosticWarning, match="after level 2 of 6"):
            partial = anneal(**settings)
    assert partial.history["acceptance_rate"].shape == (2, 16)
    assert_equal(anneal(**settings), anneal(keep_history=True))


def test_a_history_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(CheckpointError, match="cannot write .*keep_history"):
        anneal(keep_history=tmp_path / "file" / "h")


def test_reverse_diffusion_goes_on_bit_for_bit_and_leaves_what_there_is(tmp_path, monkeypatch):
    reverse = lambda **changes: nd.anneal(KEY, mixture(), nd.Reverse(), **SETTINGS | changes)
    settings = {"checkpoint_path": tmp_path / "run", "keep_history": True}
    with monkeypatch.context() as patch:
        stop_at(patch, 4, KeyboardInterrupt())
        with pytest.warns(DiagnosticWarning, match="interrupted after level 3 of 6.*same arguments"):
            partial = reverse(**settings)
    assert not partial.is_complete and len(partial.levels) == 3 and partial.evaluations_per_chain == 2
    whole, expected = reverse(**settings), reverse(keep_history=True)
    assert_equal(whole, expected)
    assert whole.is_complete and whole.stats == {} and np.isnan(whole.log_evidence)
    assert np.all(np.isnan(whole.history["acceptance_rate"])) and whole.history["acceptance_rate"].shape == (LEVELS, 16)
