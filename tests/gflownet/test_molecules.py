"""Molecules: derivations in one order alone, how many a molecule has, rewards, measures, pictures."""

import collections
import itertools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from numpyro_diffusion import errors, gflownet
from numpyro_diffusion.gflownet import molecules

Chem = pytest.importorskip("rdkit.Chem")

#: Symmetric in all ways there are: of rings, of chains, by hydrogens on nitrogen, by being made in several ways.
FEW = (("C1CC1", (0, 1, 2)), ("CC", (0, 1)), ("CCC", (1,)), ("c1cn[nH]c1", (0, 3, 4)), ("O=S=O", (1,)))
SMALL = molecules.MoleculeEnvironment(3, FEW)
WIDE = molecules.MoleculeEnvironment(5)


@pytest.fixture(scope="module")
def listed():
    """Every derivation of the small environment, and its molecule."""
    graph = gflownet.graph.graph_of(SMALL)
    index = jnp.flatnonzero(graph.is_terminal)
    states = jax.vmap(SMALL.state_of)(index)
    return index, states, molecules.smiles_of(SMALL, states)


@jax.jit
def any_path(rng_key):
    """The states of a path of the wide environment by random actions, the actions, and the state it ends in."""

    def act(state, key):
        legal = WIDE.legal(state)
        action = jax.random.categorical(key, jnp.where(legal.at[-1].set(False) | ~legal[:-1].any(), 0.0, -jnp.inf))
        action = jnp.where(legal[:-1].any(), action, WIDE.num_actions - 1)
        following = jax.tree.map(
            lambda a, b: jnp.where(action == WIDE.num_actions - 1, a, b), state, WIDE.step(state, action)
        )
        return following, (state, action)

    return jax.lax.scan(act, WIDE.initial_state(), jax.random.split(rng_key, WIDE.max_length - 1))


@pytest.mark.slow
def test_every_derivation_is_reached_once(listed):
    # Listed by hand: a root, and then pairs of slot and piece whose slots increase.
    _, states, _ = listed
    pieces = [(f, b) for f, (_, atoms) in enumerate(FEW) for b in range(len(atoms))]
    counted = 0
    for root in range(len(FEW)):
        own = [(0, a) for a in range(len(FEW[root][1]))]
        counted += 1 + len(own) * len(pieces)
        for slot, (f, b) in itertools.product(own, pieces):
            free = [s for s in own if s > slot] + [(1, a) for a in range(len(FEW[f][1])) if a != b]
            counted += len(free) * len(pieces)
    rows = {
        (*p, *s) for p, s in zip(np.asarray(states.pieces).tolist(), np.asarray(states.slots).tolist(), strict=True)
    }
    assert len(rows) == len(states.pieces) == counted


def test_one_step_back_undoes_one_step():
    # The graph of the small environment is checked in `graph_of`; this one is too large for that.
    def check(key):
        last, (states, actions) = any_path(key)
        following = jax.tree.map(lambda a, b: jnp.concatenate([a[1:], b[None]]), states, last)
        moved = actions < WIDE.num_actions - 1
        back = jax.vmap(WIDE.step_back, (0, None))(following, 0)
        same = jax.tree.map(lambda a, b: jnp.all(a == b, axis=1), back, states)
        again = jax.vmap(WIDE.redoing, (0, None))(following, 0) == actions
        return jnp.where(moved, same.pieces & same.slots & again, True), jnp.sum(moved)

    fine, moves = jax.vmap(check)(jax.random.split(jax.random.key(0), 200))
    assert fine.all() and moves.max() == WIDE.max_length - 1


@pytest.mark.slow
def test_numbers_of_derivations_are_those_of_the_list(listed):
    *_, smiles = listed
    counted = collections.Counter(smiles)
    assert {text: molecules.num_derivations(SMALL, text) for text in counted} == counted
    assert max(counted.values()) > 20


@pytest.mark.parametrize(
    "smiles", ["C1CC1CCC1CC1", "FC(F)(F)c1ccccc1", "c1cn[nH]c1", "CC(C)(C)C", "c1ccc(-c2ccccc2)cc1", "O=C[O-]"]
)
def test_automorphisms(smiles):
    molecule = Chem.MolFromSmiles(smiles)
    hydrogens = [atom.GetTotalNumHs() for atom in molecule.GetAtoms()]
    matches = molecule.GetSubstructMatches(molecule, uniquify=False, maxMatches=10_000)
    wanted = sum(all(hydrogens[i] == hydrogens[j] for i, j in enumerate(match)) for match in matches)
    assert molecules.multiplicity.num_automorphisms(molecule) == wanted


def test_the_exact_flow_draws_molecules_by_their_scores(listed):
    index, _, smiles = listed
    flow = gflownet.Flow.exact(SMALL, molecules.MoleculeReward(SMALL, molecules.qed, beta=8), beta=8)
    found = collections.Counter()
    for text, log_prob in zip(smiles, np.asarray(flow.log_probs()[index]), strict=True):
        found[text] += np.exp(log_prob)
    powers = molecules.scores(molecules.qed, list(found)) ** 8
    np.testing.assert_allclose(list(found.values()), powers / powers.sum(), rtol=1e-4)
    assert flow.log_z == pytest.approx(np.log(powers.sum()), abs=1e-4)


def test_rewards_have_any_leading_axes_and_are_zero_where_there_is_no_molecule(listed):
    reward = molecules.MoleculeReward(SMALL, molecules.sa, beta=4.0)
    states = jax.tree.map(lambda a: a[:12].reshape(3, 4, -1), listed[1])
    flat = np.array([reward(jax.tree.map(lambda a, i=i: a.reshape(12, -1)[i], states)) for i in range(12)])
    np.testing.assert_allclose(jax.jit(jax.vmap(jax.vmap(reward)))(states), flat.reshape(3, 4), rtol=1e-6)
    assert reward(SMALL.initial_state()) == 0
    assert reward(SMALL.step(SMALL.step(SMALL.initial_state(), SMALL.num_slots), 0)) == 0


@pytest.mark.slow
def test_one_way_to_every_derivation_makes_log_probabilities_exact():
    # Too many states to list, and policies that nothing has trained: still every estimate is the only one there is.
    environment = molecules.MoleculeEnvironment(4, FEW)
    assert environment.num_states is None
    network = gflownet.PolicyNetwork(width=8, num_layers=1)
    _, weights = network.build(environment, jax.random.key(0))
    rng = np.random.default_rng(0)

    def drawn(name):
        policy = jax.tree.map(lambda w: w + rng.normal(0, 0.5, w.shape).astype(w.dtype), weights)
        return gflownet.Flow(environment, gflownet.policy.NetworkPolicy(policy, network), jnp.zeros(()), name)

    mixture = 0.3 * drawn("p") + 0.7 * drawn("q")
    run = gflownet.sample(jax.random.key(1), mixture, num_samples=200, proposal="routing")
    np.testing.assert_allclose(run.log_weights, run.log_weights[0], atol=1e-4)
    assert run.is_exact and run.log_evidence == pytest.approx(0, abs=1e-4)
    found = mixture.estimated_log_prob(jax.tree.map(lambda a: a[:8], run.samples), num_paths=2)
    np.testing.assert_allclose(found.error, 0, atol=1e-5)


def test_scores_of_known_molecules():
    # Aspirin: QED as published with rdkit, and synthesised easily.
    aspirin = "CC(=O)Oc1ccccc1C(=O)O"
    assert molecules.scores(molecules.qed, [aspirin])[0] == pytest.approx(0.550, abs=2e-3)
    assert molecules.scores(molecules.sa, [aspirin])[0] == pytest.approx((10 - 1.58) / 9, abs=5e-3)


def test_scores_of_users_are_asked_every_time():
    factor = 1.0
    score = lambda molecule: factor * molecule.GetNumAtoms()
    once = molecules.scores(score, ["CCO"])
    factor = 2.0
    np.testing.assert_allclose(molecules.scores(score, ["CCO"]), 2 * once)


def test_cells_read_as_binary_numbers():
    scores = [[0.5, 0.6, 0.25], [0.6, 0.1, 0.1], [0.1, 0.1, 0.9], [0.1, 0.7, 0.3]]
    found = molecules.cells(scores)
    assert found.tolist() == [7, 4, 1, 3]
    np.testing.assert_allclose(molecules.shares(found, 8), np.bincount([7, 4, 1, 3]) / 4)
    weighted = molecules.shares(found, 8, np.log([1.0, 1.0, 2.0, 4.0]) - 700)
    np.testing.assert_allclose(weighted, np.bincount([7, 4, 1, 3], [1, 1, 2, 4]) / 8)


def test_diversity():
    assert molecules.tanimoto_diversity(["CCO", "OCC", "CCO"]) == pytest.approx(0)
    assert molecules.tanimoto_diversity(["CCCCCC", "c1ccncc1"]) == pytest.approx(1)
    assert molecules.tanimoto_diversity(["CCCCCC", "CCCCCC", "c1ccncc1"]) == pytest.approx(2 / 3)


def test_pictures():
    draw = molecules.draw_molecules
    one, three = draw(["CCO"]), draw(["CCO", "c1ccccc1", "CC"], {"QED": [0.4, 0.5, 0.6]}, columns=2)
    size = lambda png: (int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big"))
    assert one[:8] == three[:8] == b"\x89PNG\r\n\x1a\n"
    assert size(three) == (2 * size(one)[0], 2 * size(one)[1])


@pytest.mark.parametrize(
    ("fragments", "said"),
    [
        ([], "one at least"), ([("nonsense", [0])], "SMILES"), ([("C.C", [0])], "connected"), ([("CC", [2])], "0 to 1"),
        ([("CC", [])], "one at least"), ([("CC", [0, 0])], "different"), ([("FC(F)(F)F", [1])], "one more bond"),
        (3, "pairs"), ([("CC", 0)], "pairs"), ("CC", "pairs"),
    ],
)  # fmt: skip
def test_fragments_refused(fragments, said):
    with pytest.raises(errors.ParameterError, match=said):
        molecules.MoleculeEnvironment(3, fragments)


def test_refused():
    with pytest.raises(errors.ParameterError, match="max_fragments"):
        molecules.MoleculeEnvironment(0)
    with pytest.raises(errors.NotKnownError, match="at most"):
        WIDE.index(WIDE.initial_state())
    for wrong in [WIDE.initial_state(), WIDE.step(WIDE.step(WIDE.initial_state(), WIDE.num_slots), 0)]:
        with pytest.raises(errors.ParameterError, match="stop is legal"):
            molecules.smiles_of(WIDE, wrong)
    with pytest.raises(errors.ParameterError, match="this environment"):
        molecules.smiles_of(SMALL, WIDE.initial_state())
    with pytest.raises(errors.ParameterError, match=r"\[Au\]"):
        molecules.num_derivations(WIDE, "[Au]")
    with pytest.raises(errors.ParameterError, match="beta"):
        molecules.MoleculeReward(WIDE, molecules.qed, beta=0.0)
    with pytest.raises(errors.ArgumentTypeError, match="MoleculeEnvironment"):
        molecules.MoleculeReward(gflownet.Hypergrid(), molecules.qed)
    with pytest.raises(errors.ArgumentTypeError, match="score"):
        molecules.MoleculeReward(WIDE, "qed")
    with pytest.raises(errors.ParameterError, match="finite"):
        molecules.scores(lambda molecule: float("nan"), ["CC"])
    with pytest.raises(errors.ParameterError, match="two molecules"):
        molecules.tanimoto_diversity(["CC"])
    with pytest.raises(errors.ShapeError, match="column"):
        molecules.cells([[0.1, 0.2]])
    with pytest.raises(errors.ShapeError, match="one number"):
        molecules.draw_molecules(["CC"], {"QED": [1.0, 2.0]})
    with pytest.raises(errors.ParameterError, match="none"):
        molecules.draw_molecules([])


def test_without_rdkit_the_extra_is_named(monkeypatch):
    for name in [name for name in sys.modules if name == "rdkit" or name.startswith("rdkit.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rdkit", None)
    for use in [lambda: molecules.MoleculeEnvironment(2), lambda: molecules.scores(lambda molecule: 1.0, ["CCCCF"])]:
        with pytest.raises(errors.MissingLibraryError, match=r"numpyro-diffusion\[molecules\]"):
            use()


@pytest.fixture(scope="module")
def transformer():
    """A fresh network of one block: its architecture, graph definition and weights."""
    network = molecules.FragmentTransformer(width=8, num_layers=1, num_heads=2)
    return network, *network.build(WIDE, jax.random.key(0))


def test_a_fresh_transformer_prefers_no_action(transformer):
    network, _, weights = transformer
    policy = gflownet.policy.NetworkPolicy(weights, network)
    found = jax.jit(lambda policy: policy.actions(WIDE, WIDE.initial_state()).forward)(policy)
    np.testing.assert_allclose(found[np.isfinite(found)], -np.log(72), rtol=1e-5)


def test_the_transformer_reads_the_whole_tree(transformer):
    # A root with three neighbours: what is bonded where, and what it is, changes every action's logit.
    _, graphdef, weights = transformer
    rng = np.random.default_rng(1)  # zeros too
    weights = jax.tree.map(lambda w: w + rng.normal(0, 0.5, w.shape).astype(w.dtype), weights)
    logits = jax.jit(lambda state: nnx.merge(graphdef, weights)(WIDE.features(state)))
    start = molecules.Derivation(jnp.array([30, 5, 7, 40, -1]), jnp.array([-1, 0, 1, 2, -1]))
    others = [
        start._replace(pieces=start.pieces.at[3].set(41)), start._replace(slots=start.slots.at[3].set(12)),
        start._replace(slots=start.slots.at[4].set(13)),
    ]  # fmt: skip
    found, *moved = map(logits, [start, *others])
    assert found.shape == (WIDE.num_actions,)
    assert all(np.all(np.abs(other - found) > 1e-6) for other in moved)


@pytest.mark.parametrize(
    "call",
    [
        lambda: molecules.scores(molecules.qed, "CC"), lambda: molecules.qed("CC"), lambda: molecules.sa("CC"),
        lambda: molecules.smiles_of(WIDE, "CC"), lambda: molecules.smiles_of("CC", "CC"),
    ],
)  # fmt: skip
def test_text_in_the_place_of_molecules(call):
    with pytest.raises(errors.ArgumentTypeError, match="CC"):
        call()


def test_transformers_refused():
    with pytest.raises(errors.ParameterError, match="divide"):
        molecules.FragmentTransformer(width=10, num_heads=4)
    with pytest.raises(errors.ArgumentTypeError, match="PolicyNetwork"):
        molecules.FragmentTransformer().build(gflownet.Hypergrid(), jax.random.key(0))
