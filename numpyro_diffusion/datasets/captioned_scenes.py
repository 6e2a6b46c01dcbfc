"""Pictures of one or two solids on a ground under a sky, exact labels, and captions that are true of them.

    x, labels = captioned_scenes.labelled(32)(rng_key, 100)      # [100, 32, 32, 3] in [-1, 1], `Labels`
    x, tokens = captioned_scenes.sampler(32)(rng_key, 100)       # a caption each, drawn anew: what nd.fit takes

A picture shows a cube, ball, cylinder or cone, or two of them, red, green, blue or yellow, small or large; on sand,
grass, snow or water; by a sunny, overcast or night sky: 37,248 kinds. What stands where is drawn in `staging`, `solids`
renders it, and `captions` says it in words.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import jax

from .captions import TEXT, draw_caption, fulfils, holds
from .rendering import checked_size, in_pieces, picture
from .solids import trace
from .staging import COLOURS, DEPTHS, GROUNDS, SHAPES, SIZES, SKIES, Labels, Scene, sample_scene

__all__ = [
    "COLOURS", "DEPTHS", "GROUNDS", "SHAPES", "SIZES", "SKIES", "TEXT", "Labels", "Scene", "draw_caption", "fulfils",
    "holds", "labelled", "render", "sample_scene", "sampler",
]  # fmt: skip


def render(scene: Scene, size: int) -> jax.Array:
    """The picture of a scene, RGB [size, size, 3] in [-1, 1]; see `rendering.picture`."""
    return picture(lambda place: trace(scene, place), size)


def labelled(size: int = 32) -> Callable[[jax.Array, int], tuple[jax.Array, Labels]]:
    """Sampler `(rng_key, num_samples) -> (x [num_samples, size, size, 3], Labels)`; labels are uniform.

    It can be called within `jax.jit` (`num_samples` static) and is the same object for the same size. It renders
    64 pictures at a time, which bounds its memory. Errors as of `render`.
    """
    return _sampler(checked_size(size), False)


def sampler(size: int = 32) -> Callable[[jax.Array, int], tuple[jax.Array, jax.Array]]:
    """Sampler `(rng_key, num_samples) -> (x [num_samples, size, size, 3], tokens [num_samples, TEXT.max_tokens])`.

    The tokens are of a caption that is true of the picture, see `draw_caption`; otherwise like `labelled`, and with the
    same key the pictures are the same.
    """
    return _sampler(checked_size(size), True)


@lru_cache
def _sampler(size: int, with_captions: bool):
    def draw(rng_key):
        scene_key, caption_key = jax.random.split(rng_key)
        # Without the barrier the compiler would lay out the scene anew for every ray.
        scene = jax.lax.optimization_barrier(sample_scene(scene_key))
        said = draw_caption(caption_key, scene.labels) if with_captions else scene.labels
        return render(scene, size), said

    return in_pieces(draw)
