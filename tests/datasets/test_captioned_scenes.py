"""Captioned scenes: what labels and captions say is what the pixels show."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from refusals import assert_refused, refusals

from numpyro_diffusion.datasets import captioned_scenes as scenes
from numpyro_diffusion.datasets import captions, solids, staging
from numpyro_diffusion.errors import ParameterError, TextError

COUNT = 1_000
#: Rays at which solids are met, and how much of the picture each stands for.
GRID = np.stack(np.meshgrid(*2 * [(np.arange(200) + 0.5) / 200]), axis=-1).reshape(-1, 2).astype(np.float32)
LIGHT = [0.6, 0.0, 0.8]


@pytest.fixture(scope="module")
def drawn():
    """Scenes, their labels in NumPy, and a caption each."""

    def one(key):
        scene_key, caption_key = jax.random.split(key)
        scene = scenes.sample_scene(scene_key)
        return scene, scenes.draw_caption(caption_key, scene.labels)

    scene, tokens = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), COUNT))
    labels = scenes.Labels(*map(np.asarray, scene.labels))
    return scene, labels, [scenes.TEXT.decode(row) for row in np.asarray(tokens)], np.asarray(tokens)


@pytest.fixture(scope="module")
def samplers():
    """Pictures with labels and with captions, as functions of a key."""
    return [jax.jit(partial(make(16), num_samples=70)) for make in (scenes.labelled, scenes.sampler)]


@pytest.mark.slow
def test_pictures_and_labels_have_their_shapes_and_ranges(samplers):
    x, labels = samplers[0](jax.random.key(1))
    assert x.shape == (70, 16, 16, 3) and x.dtype == jnp.float32
    assert np.all(np.isfinite(x)) and -1 <= x.min() < -0.8 and 0.9 < x.max() <= 1
    known = {"shape": 4, "colour": 4, "size": 2, "depth": 3, "ground": 4, "sky": 3}
    for name, most in known.items():
        values = np.asarray(getattr(labels, name))
        least = -1 if name in ("shape", "colour", "size", "depth") else 0
        assert values.dtype.kind == "i" and set(values.ravel()) == set(range(least, most)), name
    assert np.array_equal((np.asarray(labels.shape) >= 0).sum(1), labels.count)
    assert np.array_equal(np.asarray(labels.depth) >= 0, np.asarray(labels.count) == 2)


@pytest.mark.slow
def test_the_key_decides_everything(samplers):
    labelled, captioned = samplers
    (x, tokens), again, (other, _) = (captioned(jax.random.key(seed)) for seed in (0, 0, 1))
    assert np.array_equal(x, again[0]) and np.array_equal(tokens, again[1]) and not np.array_equal(x, other)
    assert np.allclose(x, labelled(jax.random.key(0))[0], atol=1e-6)
    assert scenes.sampler(16) is scenes.sampler(16) and tokens.shape == (70, scenes.TEXT.max_tokens)


def test_labels_are_uniform(drawn):
    _, labels, *_ = drawn
    for values, count in ((labels.ground, 4), (labels.sky, 3), (labels.shape[:, 0], 4), (labels.count - 1, 2)):
        shares = np.bincount(values, minlength=count) / COUNT
        assert np.all(np.abs(shares - 1 / count) < 5 * np.sqrt(1 / count / COUNT))


def test_places_are_what_labels_say(drawn):
    scene, labels, *_ = drawn
    place, radius, two = np.asarray(scene.place), np.asarray(scene.radius), labels.count == 2
    left, right = place[two, 0], place[two, 1]
    assert np.all(right[:, 0] - left[:, 0] > staging.APART - 1e-5)
    nearer = left[:, 1] - right[:, 1]
    for depth, low, high in ((0, -1e-6, 1e-6), (1, 0.2, 0.4), (2, -0.4, -0.2)):
        assert np.all((nearer[labels.depth[two] == depth] > low) & (nearer[labels.depth[two] == depth] < high))
    there = np.asarray(scene.mask)
    inside = np.minimum(place[..., 0], 1 - place[..., 0]) - radius
    assert np.all(inside[there] > 0) and np.all(place[..., 1][there] < 0.91)
    sizes = labels.size[there]
    assert radius[there][sizes == 1].min() > 1.3 * radius[there][sizes == 0].max()


def meet(shape, radius=0.15, angle=0.3, foot=(0.0, 0.0)):
    """(distance, n . l, n . z) at `GRID` of a solid that stands at a foot on the ground, [40000] each."""
    solid = (jnp.array(foot), radius, angle, jnp.asarray(scenes.SHAPES.index(shape)), jnp.array(True))
    direction = [0.0, float(np.cos(staging.TILT)), -float(np.sin(staging.TILT))]
    one = lambda place: solids._meet(solid, solids._start(place), direction, LIGHT)
    return [np.asarray(values) for values in jax.jit(jax.vmap(one))(GRID)]


@pytest.mark.parametrize("shape", scenes.SHAPES)
def test_solids_are_seen_as_large_as_they_are(shape):
    hit = np.isfinite(meet(shape)[0])
    columns, rows = GRID[hit].T
    r, tilt = 0.15, staging.TILT
    height = solids.HEIGHTS[scenes.SHAPES.index(shape)] * r
    half = {"cube": 0.82 * (np.cos(0.3) + np.sin(0.3)), "ball": 1.0, "cylinder": 0.8, "cone": 1.05}[shape] * r
    assert columns.min() == pytest.approx(0.5 - half, abs=0.006)
    assert columns.max() == pytest.approx(0.5 + half, abs=0.006)
    # How far the top reaches: the apex of the cone, the far edge of what is flat, the ball's outline.
    behind = {"cube": half * np.sin(tilt), "cylinder": half * np.sin(tilt), "cone": 0.0, "ball": 0.0}[shape]
    top = 0.5 - (r * np.cos(tilt) + r if shape == "ball" else height * np.cos(tilt) + behind)
    assert rows.min() == pytest.approx(top, abs=0.01)
    if shape == "ball":
        assert hit.mean() == pytest.approx(np.pi * r**2, rel=0.01)


def test_faces_are_lit_as_they_are_turned():
    """A ball shows the normal that its outline tells, a cube three faces, and what is flat on top looks up."""
    distance, cosine, up = meet("ball")
    hit, r, tilt = np.isfinite(distance), 0.15, staging.TILT
    x = (GRID[hit, 0] - 0.5) / r
    v = (0.5 - GRID[hit, 1] - r * np.cos(tilt)) / r
    towards = np.sqrt(np.maximum(1 - x**2 - v**2, 0))  # along the ray, to the camera
    normal_up = v * np.cos(tilt) + towards * np.sin(tilt)
    inner = x**2 + v**2 < 0.9
    assert np.allclose(up[hit][inner], normal_up[inner], atol=0.02)
    assert np.allclose(cosine[hit][inner], (0.6 * x + 0.8 * normal_up)[inner], atol=0.02)
    distance, cosine, up = meet("cube")
    assert len(np.unique(np.round(cosine[np.isfinite(distance)], 3))) == 3
    assert set(np.round(up[np.isfinite(distance)], 6)) == {0.0, 1.0}


def test_colours_in_pictures_are_those_of_labels(drawn):
    """In the middle of a solid that nothing stands before, the hue is its own, by day and by night."""
    scene, labels, *_ = drawn
    for i in (0, 1):
        front = (labels.count > i) & ((labels.count == 1) | (labels.depth == 0) | (labels.depth == 1 + i))
        height = jnp.asarray(solids.HEIGHTS)[scene.labels.shape[:, i]] * scene.radius[:, i]
        place = scene.place[:, i] - jnp.stack([0 * height, 0.4 * height * np.cos(staging.TILT)], axis=-1)
        seen = np.asarray(jax.jit(jax.vmap(solids.trace))(scene, place))[front]
        tinted = solids.PALETTE * solids.TINT[labels.sky[front]][:, None]
        likeness = np.einsum("nc,nkc->nk", seen, tinted) / np.linalg.norm(tinted, axis=-1)
        assert np.array_equal(np.argmax(likeness, axis=1), labels.colour[front, i])
        assert np.allclose(np.max(likeness, axis=1), np.linalg.norm(seen, axis=1), rtol=0.01)


@pytest.mark.slow
def test_neither_of_two_solids_hides_the_other(drawn):
    scene, labels, *_ = drawn
    some = jax.tree.map(lambda values: values[labels.count == 2][:50], scene)
    plain = some._replace(labels=some.labels._replace(colour=jnp.tile(jnp.array([0, 2]), (50, 1))))

    def seen(scene, mask):
        return jax.vmap(lambda place: solids.trace(scene._replace(mask=mask), place))(GRID[::5])

    pictures = {m: np.asarray(jax.jit(jax.vmap(lambda s, m=m: seen(s, jnp.array(m))))(plain)) for m in (
        (True, True), (True, False), (False, True)
    )}  # fmt: skip
    for i, alone in ((0, (True, False)), (1, (False, True))):
        channel = (0, 2)[i]
        is_solid = lambda picture, c=channel: picture[..., c] > 2.0 * np.delete(picture, c, -1).max(-1)
        there, left = is_solid(pictures[alone]), is_solid(pictures[alone]) & is_solid(pictures[True, True])
        assert np.min(left.sum(1) / np.maximum(there.sum(1), 1)) > 0.5


def test_captions_are_true_and_of_many_kinds(drawn):
    _, labels, said, tokens = drawn
    one = lambda i: scenes.Labels(*(values[i] for values in labels))
    assert all(scenes.holds(caption, one(i)) for i, caption in enumerate(said))
    assert {word for caption in said for word in caption.split()} == set(scenes.TEXT.words)
    assert len(set(said)) > 500 and np.all(tokens[:, 0] > 0)
    assert np.all(np.diff((tokens > 0).astype(int), axis=1) <= 0)  # words first
    assert {1, 2} < {len(caption.split()) for caption in said}
    # Those that say little are true of many pictures, those that say much of few.
    assert np.mean(scenes.holds("sunny", labels)) > 0.25
    assert np.mean(scenes.holds("a small red cube left of a large blue cone on sand at night", labels)) < 0.01


ONE = scenes.Labels(*map(np.array, ([0, -1], [0, -1], [1, -1], 1, -1, 0, 2)))
TWO = scenes.Labels(*map(np.array, ([1, 3], [2, 1], [0, 1], 2, 2, 1, 0)))
CLAIMS = {
    "a cube": (True, False), "A large, red cube!": (True, False), "a big red box on the sand at night": (True, False),
    "a small cube": (False, False), "a cone": (False, True), "one object": (True, False), "two objects": (False, True),
    "a ball left of a cone": (False, True), "a cone left of a ball": (False, False),
    "a green cone right of a small sphere": (False, True), "a ball behind a cone": (False, True),
    "a cone in front of a blue ball on grass under a sunny sky": (False, True),
    "a ball in front of a cone": (False, False), "a cone behind a ball": (False, False),
    "a cone and a ball": (False, True), "a ball and a ball": (False, False), "a cube and a cube": (False, False),
    "sand": (True, False), "night": (True, False), "grass on a sunny day": (False, True), "in the snow": (False, False),
}  # fmt: skip


@pytest.mark.parametrize("caption", CLAIMS)
def test_what_captions_claim(caption):
    assert (bool(scenes.holds(caption, ONE)), bool(scenes.holds(caption, TWO))) == CLAIMS[caption]


def test_prompts_are_fulfilled_as_their_trees_say():
    both = scenes.Labels(*(np.stack(pair) for pair in zip(ONE, TWO, strict=True)))
    for prompt, expected in {
        '"a cube" AND ("sand" OR "grass") AND NOT "sunny"': [True, False],
        '"a cone" OR "night"': [True, True], 'NOT ("a cone" OR "sand")': [False, False], '"a cone"^2': [False, True],
    }.items():  # fmt: skip
        assert scenes.fulfils(prompt, both).tolist() == expected


@refusals({
    "size": (lambda: scenes.labelled(7), ParameterError, "size must be an integer >= 8; got 7"),
    "text": (lambda: scenes.sampler("32"), ParameterError, "size must be an integer"),
    "key": (lambda: scenes.labelled(16)(0, 3), ParameterError, "rng_key must be one JAX key"),
    "samples": (lambda: scenes.sampler(16)(jax.random.key(0), 0), ParameterError, "num_samples"),
    "word": (lambda: scenes.holds("a dog", ONE), TextError, "column 3: the word 'dog' is not known"),
    "order": (lambda: scenes.holds("a cube sand water", ONE), TextError, "column 13: this is not how scenes are"),
    "prompt": (lambda: scenes.fulfils('"a cube', ONE), TextError, "this quote is not closed"),
})  # fmt: skip
def test_refused(call, error, words):
    assert_refused(call, error, words)


def test_the_longest_caption_fits():
    longest = "a small yellow cylinder in front of a large yellow cylinder in the snow under an overcast sky"
    assert len(longest.split()) == scenes.TEXT.max_tokens and captions.holds(longest, ONE) == np.array(False)
