"""What ships is small, what does not is found in a clone, and whoever has no clone is told where it is."""

import jax
import numpy as np
import pytest

import numpyro_diffusion as nd
from numpyro_diffusion.disk import checkpoint, densities
from numpyro_diffusion.errors import UnknownNameError

#: Bytes of all weights in the package: a wheel of less than 8 MB, with half a megabyte for the code.
MOST = 7_800_000


def files(folder):
    return {path.stem: path for path in folder.rglob("*.safetensors")}


def test_weights_in_the_package_are_small():
    assert sum(path.stat().st_size for path in files(densities.PRETRAINED).values()) <= MOST


def test_weights_are_computed_with_in_single_precision():
    arrays, _ = checkpoint.read(densities.PRETRAINED / "bar.safetensors")
    assert {"int8", "float16", "float32"} == {a.dtype.name for a in arrays.values()}
    assert {leaf.dtype for leaf in jax.tree.leaves(nd.load_pretrained("bar").state)} == {np.dtype("float32")}


def test_a_clone_has_the_variants_too():
    if not densities.IN_A_CLONE.is_dir():
        pytest.skip("needs a clone")
    assert {"ring", "ring_paper", "ring_score", "cubes_16_score"} <= set(nd.list_pretrained())
    assert not nd.load_pretrained("ring_score").has_log_density
    assert nd.pretrained_card("ring_paper")["name"] == "ring_paper"
    # Each is in one place; judges have a folder of their own.
    folders = densities.PRETRAINED, densities.IN_A_CLONE
    shipped, others = ({path.name for path in folder.iterdir()} for folder in folders)
    assert not shipped & others


def test_without_a_clone_the_error_says_where_they_are(monkeypatch, tmp_path):
    monkeypatch.setattr(densities, "IN_A_CLONE", tmp_path / "none")
    assert "ring" in nd.list_pretrained() and "ring_score" not in nd.list_pretrained()
    with pytest.raises(UnknownNameError, match=r"'ring_score'.*a clone .*benchmarks/weights.*nd\.load"):
        nd.load_pretrained("ring_score")
    with pytest.raises(UnknownNameError) as caught:
        nd.load_pretrained("rings")
    assert "clone" not in str(caught.value)
