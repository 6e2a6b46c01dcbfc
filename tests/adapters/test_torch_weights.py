"""Weights of PyTorch networks in JAX ones: what layers compute, by PyTorch's definition in NumPy; what does not fit."""

import flax.linen
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx
from refusals import assert_refused, refusals

import numpyro_diffusion as nd
from numpyro_diffusion.errors import ArgumentTypeError, CheckpointError, ParameterError, WeightsError

RNG = np.random.default_rng(0)


def draw(*shape):
    return RNG.normal(size=shape).astype(np.float32)


#: A state dict as PyTorch names and orders it: a convolution, a batch norm, a transposed convolution, linear layers.
STATE = {
    "conv.weight": draw(4, 3, 3, 2), "conv.bias": draw(4),
    "bn.weight": draw(4), "bn.bias": draw(4), "bn.running_mean": draw(4), "bn.running_var": draw(4) ** 2 + 0.5,
    "bn.num_batches_tracked": np.array(7),
    "up.weight": draw(4, 5, 3, 4), "up.bias": draw(5),
    "head.0.weight": draw(2, 5), "head.0.bias": draw(2),
    "embed.weight": draw(6, 2),
}  # fmt: skip
LEAVE_OUT = {"*.num_batches_tracked": None}
X = draw(2, 6, 5, 3)
LABELS = np.array([3, 0])


def as_pytorch(state, x, labels):
    """Convolution (padding 1, 0; stride 2, 1), batch norm, transposed one (stride 2, padding 1), linear + embedding."""
    x = np.moveaxis(x, -1, 1).astype(np.float64)
    w, n = state["conv.weight"], len(x)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0)))
    y = np.zeros((n, 4, 3, 4))
    for i in range(3):
        for j in range(4):
            y[:, :, i, j] = np.einsum("ncab,ocab->no", padded[:, :, 2 * i : 2 * i + 3, j : j + 2], w)
    y += state["conv.bias"][:, None, None]
    mean, var, scale, bias = (
        state[f"bn.{k}"][:, None, None] for k in ("running_mean", "running_var", "weight", "bias")
    )
    y = (y - mean) / np.sqrt(var + 1e-5) * scale + bias
    # Every input pixel adds the kernel, as it is, to a window of the output.
    w = state["up.weight"]
    full = np.zeros((n, 5, 2 * 2 + 3, 2 * 3 + 4))
    for i in range(3):
        for j in range(4):
            full[:, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 4] += np.einsum("nc,coab->noab", y[:, :, i, j], w)
    y = full[:, :, 1:-1, 1:-1] + state["up.bias"][:, None, None]
    pooled = y.mean((2, 3))
    return pooled @ state["head.0.weight"].T + state["head.0.bias"] + state["embed.weight"][labels]


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 4, (3, 2), strides=(2, 1), padding=[(1, 1), (0, 0)], rngs=rngs)
        self.bn = nnx.BatchNorm(4, use_running_average=True, rngs=rngs)
        self.up = nnx.ConvTranspose(4, 5, (3, 4), strides=(2, 2), padding=[(1, 1), (2, 2)], rngs=rngs)
        self.head = nnx.List([nnx.Linear(5, 2, rngs=rngs), nnx.Dropout(0.5, deterministic=True, rngs=rngs)])
        self.embed = nnx.Embed(6, 2, rngs=rngs)

    def __call__(self, x, labels):
        y = self.up(self.bn(self.conv(x))).mean((1, 2))
        return self.head[1](self.head[0](y)) + self.embed(labels)


class Linen(flax.linen.Module):
    @flax.linen.compact
    def __call__(self, x, labels):
        y = flax.linen.Conv(4, (3, 2), strides=(2, 1), padding=[(1, 1), (0, 0)], name="conv")(x)
        y = flax.linen.BatchNorm(use_running_average=True, name="bn")(y)
        y = flax.linen.ConvTranspose(5, (3, 4), strides=(2, 2), padding=[(1, 1), (2, 2)], name="up")(y).mean((1, 2))
        return flax.linen.Dense(2, name="head")(y) + flax.linen.Embed(6, 2, name="embed")(labels)


def nnx_network():
    return Nnx(nnx.Rngs(0))


@pytest.mark.parametrize("make", [nnx_network, lambda: nnx.eval_shape(nnx_network)], ids=["module", "shapes"])
def test_an_nnx_module_computes_what_pytorch_would(make):
    network = make()
    before = jax.tree.leaves(nnx.state(network, nnx.Param))
    loaded = nd.load_state_dict(network, STATE, names=LEAVE_OUT)
    assert nd.check_outputs(loaded, (X, LABELS), as_pytorch(STATE, X, LABELS), tolerance=1e-4) < 1e-5
    # The one given stays as it is.
    assert all(a is b for a, b in zip(before, jax.tree.leaves(nnx.state(network, nnx.Param)), strict=True))


def test_linen_variables_compute_what_pytorch_would():
    module = Linen()
    shapes = jax.eval_shape(module.init, jax.random.key(0), X, LABELS)
    names = LEAVE_OUT | {
        "head.0.*": "params.head.*", "bn.running_*": "batch_stats.bn.running_*", "*": "params.*",
    }  # fmt: skip
    variables = nd.load_state_dict(shapes, STATE, names=names, layouts={"up.*": "transposed_kernel"})
    nd.check_outputs(lambda *x: module.apply(variables, *x), (X, LABELS), as_pytorch(STATE, X, LABELS), tolerance=1e-4)


def test_transpose_kernel_of_flax_is_known():
    class Transposed(nnx.Module):
        def __init__(self, rngs):
            self.up = nnx.ConvTranspose(
                4, 5, (3, 4), strides=(2, 2), padding=[(1, 1), (2, 2)], transpose_kernel=True, rngs=rngs
            )

    state = {k: v for k, v in STATE.items() if k.startswith("up")}
    x = draw(2, 3, 4, 4)
    found = nd.load_state_dict(Transposed(nnx.Rngs(0)), state).up(x)
    np.testing.assert_allclose(
        found, nd.load_state_dict(nnx_network(), STATE, names=LEAVE_OUT).up(x), rtol=1e-4, atol=1e-5
    )


def test_an_equinox_module_has_the_axes_of_pytorch():
    eqx = pytest.importorskip("equinox")
    network = eqx.nn.MLP(5, 2, 8, depth=1, key=jax.random.key(0))
    state = {"0.weight": draw(8, 5), "0.bias": draw(8), "2.weight": draw(2, 8), "2.bias": draw(2)}
    loaded = nd.load_state_dict(network, state, names={"0.*": "layers.0.*", "2.*": "layers.1.*"})
    x = draw(5)
    hidden = np.maximum(state["0.weight"] @ x + state["0.bias"], 0)
    nd.check_outputs(loaded, (x,), state["2.weight"] @ hidden + state["2.bias"])


def test_any_pytree_of_arrays():
    tree = {"layers": [{"kernel": jnp.zeros((3, 2)), "bias": jnp.zeros(2)}], "norm": {"scale": jnp.zeros((4, 5, 3))}}
    state = {"model.layers.0.weight": draw(2, 3), "model.layers.0.bias": draw(2), "model.norm.weight": draw(3, 4, 5)}
    loaded = nd.load_state_dict(tree, state, names={"model.*": "*"}, layouts={"*norm*": "channels_last"})
    np.testing.assert_array_equal(loaded["layers"][0]["kernel"], state["model.layers.0.weight"].T)
    np.testing.assert_array_equal(loaded["norm"]["scale"], np.moveaxis(state["model.norm.weight"], 0, 2))
    # A function for what no name says: three matrices in one, of which the middle is wanted.
    (qkv,) = nd.load_state_dict([jnp.zeros((4, 2))], {"0": draw(6, 4)}, layouts={"0": lambda w: w[2:4].T})
    assert qkv.shape == (4, 2)


def test_types_of_the_network_are_kept():
    tree = {"a": jnp.zeros(3, jnp.bfloat16), "b": np.zeros(2, np.int32), "c": jnp.zeros(2)}
    state = {"a": draw(3), "b": np.array([1, 2]), "c": np.array([1, 2], ml_dtypes.bfloat16)}
    loaded = nd.load_state_dict(tree, state)
    assert [leaf.dtype.name for leaf in jax.tree.leaves(loaded)] == ["bfloat16", "int32", "float32"]


def test_the_first_pattern_counts_and_dots_are_dots():
    tree = {"a": {"b": jnp.zeros(2)}, "c": jnp.zeros(1)}
    loaded = nd.load_state_dict(tree, {"x.y": draw(2), "xzy": draw(1)}, names={"x.y": "a.b", "x*": "c"})
    assert loaded["c"].shape == (1,)


def test_all_that_does_not_fit_is_named_with_its_shape():
    state = {k: v for k, v in STATE.items() if k != "conv.bias"}
    state |= {"extra.weight": draw(2), "head.0.weight": draw(5, 2), "up.bias": np.array([1, np.nan, 1, 1, 1])}
    with pytest.raises(WeightsError) as caught:
        nd.load_state_dict(nnx_network(), state)
    message = str(caught.value)
    for words in (
        "5 do not fit", "extra.weight [2] has no place", "conv.bias [4] is missing", "up.bias holds NaN",
        "head.0.weight has shape [2, 5] as laid out for head.0.kernel [5, 2]", "bn.num_batches_tracked [] has no place",
    ):  # fmt: skip
        assert words in message


def save(path, state):
    path.write_bytes(safetensors.numpy.save(state))
    return path


def test_plain_files_are_read_as_they_are(tmp_path):
    state = STATE | {"half": draw(2).astype(ml_dtypes.bfloat16), "mask": np.array([-np.inf, 0], np.float32)}
    found = nd.read_state_dict(save(tmp_path / "model.safetensors", state))
    assert set(found) == set(state)
    for name, array in state.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
    # Those of this package are safetensors as well.
    assert "mean" in nd.read_state_dict(nd.disk.densities.PRETRAINED / "ring.safetensors")


@pytest.mark.parametrize("suffix", ["pt", "pth", "ckpt", "bin", "PT"])
def test_pickles_are_not_opened(tmp_path, suffix):
    path = tmp_path / f"model.{suffix}"
    for exists in (False, True):
        with pytest.raises(CheckpointError, match="must be a safetensors file.*run code.*save_file"):
            nd.read_state_dict(path)
        path.write_bytes(b"" if exists else b"\x80\x04.")


def test_damaged_files_are_refused(tmp_path):
    path = save(tmp_path / "model.safetensors", STATE)
    whole = path.read_bytes()
    for content in (
        b"",
        whole[:7],
        whole[:100],
        whole[:-1],
        whole + b"x",
        b"PK\x03\x04" + bytes(100),
        b"\x80\x04" + whole,
    ):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="no intact checkpoint"):
            nd.read_state_dict(path)
    with pytest.raises(CheckpointError, match="cannot read.*Check the path"):
        nd.read_state_dict(tmp_path / "nowhere.safetensors")


ONE = {"a": jnp.zeros(2)}
#: What is refused: (call, error, words of the message: rule, value, remedy).
REFUSED = {
    "no state dict": (
        lambda: nd.load_state_dict(ONE, [draw(2)]), ArgumentTypeError, r"arrays by name.*read_state_dict"),
    "names of numbers": (lambda: nd.load_state_dict(ONE, {1: draw(2)}), ArgumentTypeError, r"arrays by name"),
    "an array of text": (
        lambda: nd.load_state_dict(ONE, {"a": "weights"}), WeightsError, r"'a' must be an array.*'weights'"),
    "names that are a list": (
        lambda: nd.load_state_dict(ONE, {"a": draw(2)}, names=["a"]), ArgumentTypeError, r"names must"),
    "more stars than texts": (
        lambda: nd.load_state_dict(ONE, {"a": draw(2)}, names={"a": "*"}), ParameterError,
        r"repeats its \*.*'a': '\*'"),
    "a name that is a number": (
        lambda: nd.load_state_dict(ONE, {"a": draw(2)}, names={"a": 3}), ParameterError, r"or to None; got 'a': 3"),
    "an unknown layout": (
        lambda: nd.load_state_dict(ONE, {"a": draw(2)}, layouts={"*": "OIHW"}), ParameterError,
        r"same, kernel,.*'OIHW'"),
    "a layout that is a list": (
        lambda: nd.load_state_dict(ONE, {"a": draw(2)}, layouts={"*": [1, 0]}), ParameterError, r"got \[1, 0\]"),
    "two for one place": (
        lambda: nd.load_state_dict(ONE, {"a": draw(2), "b": draw(2)}, names={"b": "a"}), WeightsError,
        r"b goes to a, as"),
    "a place that is not there": (
        lambda: nd.load_state_dict(ONE, {"b": draw(2)}, names={"b": "c"}), WeightsError, r"b \[2\] has no place at c"),
    "numbers beyond the type": (
        lambda: nd.load_state_dict({"a": jnp.zeros(2, jnp.float16)}, {"a": 1e6 * np.ones(2)}), WeightsError,
        r"as float16"),
    "floats for integers": (
        lambda: nd.load_state_dict({"a": np.zeros(2, int)}, {"a": draw(2)}), WeightsError, r"holds float32, a int64"),
    "outputs of another shape": (
        lambda: nd.check_outputs(lambda x: x, (X,), np.moveaxis(X, -1, 1)), WeightsError,
        r"\(2, 6, 5, 3\).*channels before"),
    "outputs of another sign": (
        lambda: nd.check_outputs(lambda x: -x, (X,), X), WeightsError,
        r"agree to 0.0001; .*cosine -1\).*layer by layer"),
    "outputs of NaN": (lambda: nd.check_outputs(lambda x: x * np.nan, (X,), X), WeightsError, r"differ by up to nan"),
    "inputs that are no tuple": (
        lambda: nd.check_outputs(lambda x: x, X, X), ArgumentTypeError, r"Write \(x,\) for one"),
    "a tolerance of zero": (
        lambda: nd.check_outputs(lambda x: x, (X,), X, tolerance=0), ParameterError, r"tolerance must"),
}  # fmt: skip


@refusals(REFUSED)
def test_refused(call, error, words):
    assert_refused(call, error, words)
