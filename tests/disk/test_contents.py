"""Files whose digest is right and whose content is nonsense, and densities that would make such files."""

import copy
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from densities import network
from disk.raw import raw

import numpyro_diffusion as nd
from numpyro_diffusion import classifier
from numpyro_diffusion.density.axes import DenseAxes
from numpyro_diffusion.density.gaussian import Gaussian
from numpyro_diffusion.density.mixture import MixtureBase
from numpyro_diffusion.disk import checkpoint, contents
from numpyro_diffusion.errors import CheckpointError, ParameterError
from numpyro_diffusion.networks.classifier import ClassifierConfig

ESCAPES = "\x1b[31mred\x1b[0m"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """(arrays, config) of an energy density, of one on a mixture, and of a classifier."""
    folder = tmp_path_factory.mktemp("saved")
    two, mixed = network(), network(condition_size=2, seed=1)
    base = MixtureBase.of([[0.0, 0.0], [1.0, 1.0]], np.stack([np.eye(2)] * 2), np.full((3, 2), 0.5))
    mixed = mixed._replace(base=base, moments=Gaussian(mixed.mean, jnp.array([1.0, 0.5]), DenseAxes(jnp.eye(2))))
    small = ClassifierConfig(image_shape=(8, 8, 1), num_outputs=2, widths=(4, 4), hidden_size=4)
    judge = classifier.Classifier(small.build(jax.random.key(0))[1], small, "judge")
    nd.save(two, folder / "two")
    nd.save(mixed, folder / "mixed")
    classifier.save_classifier(judge, folder / "judge")
    return {path.name: checkpoint.read(path) for path in folder.iterdir()}


def refused(path, arrays, config, load=nd.load):
    """The text of the refusal of a file with this content and a digest that is right."""
    checkpoint.write(path, arrays, config)
    with pytest.raises(CheckpointError, match=path.name) as caught:
        load(path)
    message = str(caught.value)
    assert message.isprintable() and len(message) < 1000
    return message


def turned(V):
    """Axes that are not orthonormal: one of them twice."""
    V = V.copy()
    V[..., 1] = V[..., 0]
    return V


ARRAYS = {
    "a negative eigenvalue": ("eigenvalues", lambda a: a * [-1, 1], "eigenvalues must lie in"),
    "an eigenvalue of zero": ("eigenvalues", lambda a: a * [0, 1], "eigenvalues must lie in"),
    "eigenvalues beyond all units": ("eigenvalues", lambda a: a * 1e30, "eigenvalues must lie in"),
    "eigenvalues out of order": ("eigenvalues", lambda a: a[::-1], "must not decrease"),
    "sigmas exchanged": ("sigmas", lambda a: a[::-1], "sigmas must increase"),
    "a sigma of zero": ("sigmas", lambda a: a * [0, 1], "sigmas must increase"),
    "a negative sigma": ("sigmas", lambda a: a * [-1, 1], "sigmas must increase"),
    "equal sigmas": ("sigmas", lambda a: a[[0, 0]], "sigmas must increase"),
    "an axis twice": ("eigenvectors", turned, "orthonormal"),
    "axes too long": ("eigenvectors", lambda a: 1.01 * a, "orthonormal"),
    "axes of zeros": ("eigenvectors", np.zeros_like, "orthonormal"),
    "a mean beyond all units": ("mean", lambda a: a + 1e20, "mean must lie in"),
    "knots backwards": ("log_z", lambda a: a[:, ::-1], "knots of log_z must increase"),
    "knots that repeat": ("log_z", lambda a: np.repeat(a[:, ::2], 2, axis=1), "knots of log_z must increase"),
    "no knots": ("log_z", lambda a: a[:, :0], "log_z has shape"),
    "a third row of knots": ("log_z", lambda a: np.concatenate([a, a[:1]]), "log_z has shape"),
    "a normaliser beyond all energies": ("log_z", lambda a: a + [[0], [1e20]], "log_z must lie in"),
    "whole numbers": ("mean", lambda a: a.astype(int), "floating-point"),
}


@pytest.mark.parametrize("what", ARRAYS)
def test_arrays_that_no_density_has(saved, path, what):
    name, change, message = ARRAYS[what]
    arrays, config = saved["two"]
    value = np.asarray(change(arrays[name]))
    assert message in refused(
        path, arrays | {name: value.astype(value.dtype if value.dtype.kind == "i" else "f4")}, config
    )


def test_weights_that_no_training_ends_with(saved, path):
    arrays, config = saved["two"]
    name = next(k for k in arrays if "kernel" in k)
    assert "weights must lie within" in refused(path, arrays | {name: 1e30 * np.ones_like(arrays[name])}, config)
    # The largest number of float16 is a weight like others.
    checkpoint.write(path, arrays | {name: np.full(arrays[name].shape, 65504, np.float16)}, config)
    assert nd.load(path)
    assert "no place for ['evil']" in refused(path, arrays | {"evil": np.zeros(3)}, config)


BASES = {
    "a negative weight": ("weights", lambda a: a + [[-1, 1]], "base.weights must lie in"),
    "weights that sum to two": ("weights", lambda a: 2 * a, "base.weights"),
    "weights that sum to a half": ("weights", lambda a: 0.5 * a, "must sum to one"),
    "weights of zero": ("weights", np.zeros_like, "must sum to one"),
    "a negative variance": ("eigenvalues", lambda a: -a, "base.eigenvalues must lie in"),
    "an axis twice": ("eigenvectors", turned, "orthonormal"),
    "too many classes": ("weights", lambda a: np.concatenate([a, a]), "classes"),
    "means far away": ("means", lambda a: a + 1e30, "base.means must lie in"),
}


@pytest.mark.parametrize("what", BASES)
def test_bases_that_are_no_mixture(saved, path, what):
    name, change, message = BASES[what]
    arrays, config = saved["mixed"]
    value = np.asarray(change(arrays[f"base.{name}"]), np.float32)
    assert message in refused(path, arrays | {f"base.{name}": value}, config)


def changed(config, value, *where):
    config = copy.deepcopy(config)
    holder = config
    for key in where[:-1]:
        holder = holder[key]
    holder[where[-1]] = value
    return config


CONFIGS = {
    ("name",): ["x" * 201, "x" * 1_000_000, ESCAPES, "a\nb", "\u202egnir", 3, ["ring"], True],
    ("card",): [3, [1], "text", {"x": "y" * 2_000_000}],
    ("class",): ["", "x" * 100_000, ESCAPES, None, 3, ["EnergyDensity"]],
    ("calibrated",): [1, "yes", None],
    ("parameterisation",): ["score", ESCAPES, None, ["l2"]],
    ("event_shape",): [
        [], [0], [-2], [2.0], [True, True], "2", 2, None, [2] + [1] * 9, [10**30], [2**40, 2**40], [1] * 10**5,
    ],
    ("network", "type"): ["UNetConfig", "PatchConfig", ESCAPES, None, 3],
    ("network", "width"): [0, -1, True, 1.5, "8", None, 10**9, 2**60, 10**30, [8]],
    ("network", "num_blocks"): [0, True, 10**9, 2**60, "1", [1]],
    ("network", "expansion"): [10**9, 0, 1.5, True],
    ("network", "embedding_size"): [3, 10**9, 0, True],
    ("network", "condition_size"): [10**9, -1, True, 1],
    ("network", "unheard_of"): [1],
    ("schedule", "type"): ["", ESCAPES, "Cosine", None, 3],
    ("schedule", "sigma_max"): [0, -1.0, True, "100", None, 10**30, 1e300, [1]],
    ("schedule", "beta_min"): [0, -0.1, True, "0.1", 1e20],
    ("schedule", "beta_max"): [0.01, 1e5, True],
    ("schedule", "shape"): ["", ESCAPES, True, 3],
    ("schedule", "rho"): [7.0],
}  # fmt: skip


@pytest.mark.parametrize("where", CONFIGS, ids=".".join)
def test_configs_of_no_density(saved, path, where):
    arrays, config = saved["two"]
    for value in CONFIGS[where]:
        refused(path, arrays, changed(config, value, *where))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_json_does_not_know(saved, path, number):
    arrays, config = saved["two"]
    checkpoint.write(path, arrays, changed(config, 12345.5, "schedule", "sigma_max"))
    text = path.read_bytes()
    length = int.from_bytes(text[:8], "little")
    header = json.loads(text[8 : 8 + length])
    metadata = header["__metadata__"]
    metadata["config"] = metadata["config"].replace("12345.5", number)
    metadata["sha256"] = checkpoint._digest(metadata["config"], arrays)
    path.write_bytes(raw(header, text[8 + length :]))
    with pytest.raises(CheckpointError, match="its config is not JSON"):
        nd.load(path)


JUDGES = {
    ("name",): ["x" * 201, ESCAPES, 3],
    ("card",): [3, {"x": "y" * 2_000_000}],
    ("network", "widths"): [[], [0, 4], [True, 4], "44", 4, [4] * 10**5, [10**9, 4], [4, 4, 4]],
    ("network", "image_shape"): [[8, 8], [8, 8, 10**9], [8, 8, True], None, [8, 8, 1.0]],
    ("network", "num_outputs"): [10**9, 0, True, "2", 3],
    ("network", "hidden_size"): [10**9, 0, True],
    ("network", "position_width"): [-0.1, True, "0.1", None, 0.1],
    ("network", "embedding_size"): [3, True, 10**9, 4],
    ("network", "num_groups"): [3, True, -1],
}


@pytest.mark.parametrize("where", JUDGES, ids=".".join)
def test_configs_of_no_classifier(saved, path, where):
    arrays, config = saved["judge"]
    for value in JUDGES[where]:
        refused(path, arrays, changed(config, value, *where), classifier.load_classifier)


def test_weights_of_no_classifier(saved, path):
    arrays, config = saved["judge"]
    name, load = sorted(arrays)[0], classifier.load_classifier
    heavy = np.full(arrays[name].shape, 1e30, np.float32)
    assert "weights must lie within" in refused(path, arrays | {name: heavy}, config, load)
    assert "no place for" in refused(path, arrays | {"evil": np.zeros(2)}, config, load)


def test_array_names_that_do_not_print(saved, path):
    arrays, config = saved["two"]
    for name in (ESCAPES, "x" * 1_000_000, "a\nb"):
        with pytest.raises(ParameterError, match="array names"):
            checkpoint.write(path, arrays | {name: np.zeros(1)}, config)
    header = {"__metadata__": {"format": "numpyro_diffusion", "format_version": "1", "config": "{}"}}
    for name in (ESCAPES, "x" * 100_000):
        header["__metadata__"]["sha256"] = checkpoint._digest("{}", {name: np.zeros(1, np.float32)})
        path.write_bytes(raw(header | {name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)))
        with pytest.raises(CheckpointError, match="is no name of an array") as caught:
            checkpoint.read(path)
        assert str(caught.value).isprintable() and len(str(caught.value)) < 1000


SAVES = {
    "a name with escapes": (lambda p: p._replace(name=ESCAPES), {}, "name must be printable"),
    "a long name": (lambda p: p._replace(name="x" * 201), {}, "name must be printable"),
    "a card that is text": (lambda p: p, {"card": "made by hand"}, "card must be a dict"),
    "a card with NaN": (lambda p: p, {"card": {"loss": float("nan")}}, "card must be a dict"),
    "a card of arrays": (lambda p: p, {"card": {"x": np.zeros(3)}}, "card must be a dict"),
    "a long card": (lambda p: p, {"card": {"log": "x" * 2_000_000}}, "Shorten it"),
    "integer weights": (lambda p: p, {"dtype": "int16"}, "dtype must be one of float16"),
    "an unknown type": (lambda p: p, {"dtype": "float15"}, "dtype must be one of float16"),
    "weights that float16 does not hold": (
        lambda p: p._replace(state=jax.tree.map(lambda a: a + 1e5, p.state)), {"dtype": "float16"}, "Leave out dtype",
    ),
    "weights that grew without bound": (
        lambda p: p._replace(state=jax.tree.map(lambda a: a + 1e9, p.state)), {}, "weights must lie within",
    ),
    "sigmas exchanged": (lambda p: p._replace(sigmas=p.sigmas[::-1]), {}, "sigmas must increase"),
    "another schedule": (lambda p: p.with_schedule(nd.VarianceExploding(rho=1000.0)), {}, "rho must lie in"),
}  # fmt: skip


@pytest.mark.parametrize("what", SAVES)
def test_what_load_would_refuse_is_not_saved(path, what):
    change, settings, message = SAVES[what]
    with pytest.raises(ParameterError, match=message):
        nd.save(change(network()), path, **settings)
    assert not path.exists()


def test_a_condition_is_not_lost_in_a_file(path):
    density = network(condition_size=2)
    with pytest.raises(ParameterError, match="a file holds no condition"):
        nd.save(density.given([1.0, 0.0]), path)
    nd.save(density.given([1.0, 0.0]).given(None)._replace(name="back"), path)
    assert nd.load(path).config.condition_size == 2


def test_a_schedule_of_ones_own_is_not_saved(path):
    class Own(nd.VariancePreserving):
        pass

    with pytest.raises(ParameterError, match="the schedule must be one of VariancePreserving"):
        nd.save(network().with_schedule(Own()), path)


@pytest.mark.parametrize("name", [None, "", "ring", "x" * 200, 'ring "é" × ½'])
def test_names_and_cards_that_may_be(path, name):
    nd.save(network()._replace(name=name), path, card={"script": "by hand", "seed": 0, "nested": [1.5, None]})
    assert nd.load(path).name == name


def test_orthonormal_axes_pass_in_many_dimensions():
    V = np.linalg.qr(np.random.default_rng(0).normal(size=(300, 300)))[0].astype(np.float32)
    contents.check_orthonormal("V", V)
    for change in (lambda V: V.__setitem__((0, 0), V[0, 0] + 0.01), lambda V: V.__setitem__((slice(None), 7), V[:, 8])):
        off = V.copy()
        change(off)
        with pytest.raises(ParameterError, match="orthonormal"):
            contents.check_orthonormal("V", off)
