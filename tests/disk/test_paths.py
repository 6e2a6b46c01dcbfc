"""Places that are no files: pipes, sockets, devices, folders and links are refused at once, never waited for."""

import json
import os
import signal
import socket
import struct
import sys

import jax
import numpy as np
import pytest
from click.testing import CliRunner
from densities import mixture, network

import numpyro_diffusion as nd
from numpyro_diffusion import classifier
from numpyro_diffusion.cli import main as cli
from numpyro_diffusion.disk import arrays as files
from numpyro_diffusion.disk import checkpoint, paths
from numpyro_diffusion.errors import CheckpointError, DiffusionError, ParameterError

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
SECONDS = 300  # compilation on a busy machine takes minutes, a pipe for ever

#: What may stand where a file is expected, and what it is called.
OBSTACLES = {
    "fifo": "a named pipe", "to a fifo": "a named pipe", "socket": "a socket", "folder": "a folder", "loop": "links",
    "file/x": "Not a directory", "x" * 300: "too long",
}  # fmt: skip
DEVICES = [path for path in ("/dev/zero", "/dev/full", "/dev/null", "/dev/stdin") if os.path.exists(path)]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with every obstacle, and nobody who waits."""
    monkeypatch.chdir(tmp_path)
    os.mkfifo("fifo")
    server = socket.socket(socket.AF_UNIX)
    server.bind("socket")
    os.mkdir("folder")
    for link, target in {"to a fifo": "fifo", "loop": "loop", "nowhere": "none/x", "new": "made"}.items():
        os.symlink(target, link)
    (tmp_path / "file").write_text("x")

    def hang(*_):
        pytest.fail(f"waited for {SECONDS} s")

    before = signal.signal(signal.SIGALRM, hang)
    signal.alarm(SECONDS)
    yield tmp_path
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
    server.close()


def run(**settings):
    return nd.anneal(
        jax.random.key(0),
        mixture(),
        nd.HMC(0.3),
        num_chains=4,
        levels=3,
        num_pilot_chains=4,
        progress_bar=False,
        **settings,
    )


READERS = {"load": nd.load, "load_classifier": classifier.load_classifier, "read_array": files.read_array}
WRITERS = {
    "save": lambda path: nd.save(network(), path),
    "write": lambda path: files.write(path, b"content"),
    "write_array": lambda path: files.write_array(path, np.zeros(3)),
    "check_writable": lambda path: files.check_writable(path, force=True),
    "checkpoint_path": lambda path: run(checkpoint_path=path),
}


@pytest.mark.parametrize("name", READERS)
def test_nothing_but_files_is_read(place, name):
    for path, kind in (OBSTACLES | {"nowhere": "a link to nothing", "none": "No such file"}).items():
        with pytest.raises(DiffusionError, match=kind):
            READERS[name](path)
    for path in DEVICES:
        with pytest.raises(DiffusionError, match="a device|a named pipe|a socket|regular"):
            READERS[name](path)


@pytest.mark.parametrize("name", WRITERS)
def test_nothing_but_files_is_written(place, name):
    before = sorted(os.listdir("."))
    for path, kind in (
        OBSTACLES | {"nowhere": "No such file|does not exist", "none/x": "No such file|not exist"}
    ).items():
        with pytest.raises(DiffusionError, match=f"{kind}|does not exist"):
            WRITERS[name](path)
    kinds = {path: os.stat(path).st_mode for path in DEVICES}
    for path in DEVICES:
        with pytest.raises(DiffusionError, match="where a file is to be written|No such file"):
            WRITERS[name](path)
    assert sorted(os.listdir(".")) == before and {path: os.stat(path).st_mode for path in DEVICES} == kinds


@pytest.mark.parametrize("name", [*READERS, *WRITERS])
@pytest.mark.parametrize("path", [3, None, b"x", "a\0b", ["x"]])
def test_what_is_no_path(name, path):
    if name == "checkpoint_path" and path is None:
        pytest.skip("no checkpoint")
    with pytest.raises(ParameterError, match="must be a path"):
        (READERS | WRITERS)[name](path)


def test_links_are_followed(place):
    WRITERS["save"]("new")
    assert os.path.islink("new") and os.path.isfile("made") and nd.load("new")


def test_files_of_the_system_that_call_themselves_empty(place):
    # Reading some of them waits for what the system has to say.
    for path in filter(os.path.exists, ("/proc/kmsg", "/proc/self/mem", "/proc/self/status")):
        with pytest.raises(DiffusionError):
            nd.load(path)
        with pytest.raises(DiffusionError):
            files.read_array(path)


LOCKS = {
    "a named pipe": lambda path: os.mkfifo(path),
    "a folder": lambda path: os.mkdir(path),
    "a link to nothing": lambda path: os.symlink("elsewhere", path),
    "a device": lambda path: os.symlink("/dev/zero", path),
    "something else": lambda path: path.write_text("a lock file of another program"),
}


@pytest.mark.parametrize("what", LOCKS)
def test_a_lock_that_is_not_ours(place, what):
    lock = place / "run.lock"
    LOCKS[what](lock)
    with pytest.raises(CheckpointError, match=rf"run\.lock must be an empty file.* {what}"):
        run(checkpoint_path="run")
    assert os.path.lexists(lock) and not os.path.exists("run")


def test_a_history_is_a_new_folder(place, monkeypatch):
    # Before the pilot.
    monkeypatch.setattr(sys.modules["numpyro_diffusion.annealing.anneal"], "planned", None)
    for path in ("fifo", "socket", "folder", "nowhere", "to a fifo", *DEVICES):
        with pytest.raises(ParameterError, match="exists already"):
            run(keep_history=path)
    for path in ("loop", "none/h", "file/h", "x" * 300):
        with pytest.raises(CheckpointError, match="cannot write"):
            run(keep_history=path)


@pytest.mark.slow
def test_pipes_in_the_history_of_a_run_that_goes_on(place):
    run(keep_history="h", checkpoint_path="run")
    os.unlink("h/zarr.json")
    os.mkfifo("h/zarr.json")
    with pytest.raises(CheckpointError, match=r"zarr\.json in it is a named pipe"):
        run(keep_history="h", checkpoint_path="run")


def test_larger_than_memory(place):
    with open("sparse.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (2**46,)})
        try:
            file.truncate(file.tell() + 8 * 2**46)
        except OSError:
            pytest.skip("no file system for sparse files")
    with pytest.raises(ParameterError, match="larger than the memory|cannot read|damaged"):
        files.read_array("sparse.npy")
    header = json.dumps({"w": {"dtype": "F32", "shape": [2**46], "data_offsets": [0, 2**48]}}).encode()
    with open("sparse", "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + 2**48)
    with pytest.raises(CheckpointError, match="larger than the memory|no intact checkpoint|not a checkpoint"):
        checkpoint.read("sparse")


def test_open_regular_does_not_wait_for_what_took_the_place_meanwhile(place, monkeypatch):
    monkeypatch.setattr(paths, "what_is", lambda path: "a file")
    with pytest.raises(OSError, match="regular file"):
        paths.open_regular("fifo")


COMMANDS = {
    "data": ["train", "--data", "{}", "--output", "m"],
    "trained": ["train", "--data", "x.npy", "--output", "{}", "--force"],
    "state": ["train", "--data", "x.npy", "--output", "m", "--checkpoint", "{}"],
    "model": ["sample", "--model", "{}", "--output", "s.npy"],
    "samples": ["sample", "--model", "ring", "--output", "{}", "--force"],
    "picture": ["cubes", "--output", "{}", "--force"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_line_waits_for_nothing(place, name):
    np.save("x.npy", np.random.default_rng(0).normal(size=(20, 2)))
    for path in ("fifo", "to a fifo", "folder", "socket", "loop", *DEVICES):
        result = CliRunner().invoke(cli.main, [argument.format(path) for argument in COMMANDS[name]])
        assert result.exit_code == 1 and isinstance(result.exception, SystemExit), (path, result.output)
        assert result.stderr.strip().splitlines()[-1].startswith("Error: "), path
    assert not os.path.exists("m") and not os.path.exists("s.npy")


def test_options_that_name_one_file(place):
    np.save("x.npy", np.zeros((20, 2)))
    os.symlink("x.npy", "same")
    for arguments in (
        ["train", "--data", "x.npy", "--output", "same", "--force"],
        ["train", "--data", "x.npy", "--output", "m", "--checkpoint", "m"],
        ["sample", "--model", "x.npy", "--output", "x.npy", "--force"],
    ):
        result = CliRunner().invoke(cli.main, arguments)
        assert result.exit_code == 1 and "name one file" in result.stderr


def test_a_terminal_is_not_told_what_to_do(place):
    for name in ("\x1b[31mred.npy", "\udcff.npy", "two\nlines.npy", "\u202etfel.npy"):
        result = CliRunner().invoke(cli.main, ["train", "--data", name, "--output", "m"])
        assert result.exit_code == 1 and result.stderr.strip().isprintable()
