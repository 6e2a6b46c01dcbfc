"""The sEH proxy gives the values that public code gives."""

import json
from pathlib import Path

import numpy as np
import pytest

from numpyro_diffusion.errors import CheckpointError, ParameterError, WeightsError
from numpyro_diffusion.gflownet.molecules.proxy import SHAPES, SehProxy

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
pytest.importorskip("rdkit")


def random_weights(seed=0):
    rng = np.random.default_rng(seed)
    return {f"{number:02d}": rng.normal(0, 0.2, shape).astype(np.float32) for number, shape in SHAPES.items()}


@pytest.fixture(scope="module")
def proxy():
    if not (DATA / "seh_proxy.safetensors").is_file():
        pytest.skip("needs ../shared/data")
    return SehProxy.load(DATA / "seh_proxy.safetensors")


def test_values_of_four_molecules(proxy):
    wanted = json.loads((DATA / "seh_reference.json").read_text())
    np.testing.assert_allclose(proxy.values(list(wanted)), list(wanted.values()), atol=2e-5)


def test_a_value_depends_on_the_molecule_alone():
    # Not on how its atoms are numbered, nor on the atoms that are none, nor on what else is in the batch.
    proxy = SehProxy(random_weights())
    large = "O=C(NC1CCCCC1)NC12CC3CC(CC(C3)C1)C2"
    alone, turned = proxy.values(["CCO"]), proxy.values(["OCC"])
    beside = proxy.values(["CCO", large])
    np.testing.assert_allclose(turned, alone, rtol=1e-5)
    np.testing.assert_allclose(beside[:1], alone, rtol=1e-5)
    assert abs(beside[1] - beside[0]) > 1e-3


def test_a_single_atom_has_a_loop():
    # With weights that pass on messages alone: without the loop the value would be that of zeros.
    weights = random_weights()
    no_message = {**weights, "06": 0 * weights["06"], "07": 0 * weights["07"]}
    assert abs(SehProxy(weights).values(["C"]) - SehProxy(no_message).values(["C"])) > 1e-3


def test_no_molecules_have_no_values():
    assert SehProxy(random_weights()).values([]).shape == (0,)


def test_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"none\.safetensors"):
        SehProxy.load(tmp_path / "none.safetensors")
    weights = random_weights()
    with pytest.raises(WeightsError, match="05, 21"):
        SehProxy({name: array for name, array in weights.items() if name != "05"} | {"21": np.zeros(2)})
    proxy = SehProxy(weights)
    for smiles in ["nonsense", ""]:
        with pytest.raises(ParameterError, match="SMILES|smiles|atoms"):
            proxy.values([smiles])
    with pytest.raises(ParameterError, match="barium"):
        proxy.values(["[Au]"])
