"""Store shipped weights in a quarter of single precision, and say what that changes.

    python benchmarks/train/compact.py                       # densities of the plane and of cubes, and their judges
    python benchmarks/train/compact.py captioned_scenes_32   # some

Large arrays become whole numbers of eight bits with a scale per output channel (`nd.save(..., dtype="int8")`); what was
measured, the normaliser and what data look like, stays in single precision. The normaliser of a density of the plane is
corrected by what eight bits do to it at each knot of its table, :math:`Z' / Z = E_p[p' / p]`, with data for draws of p.
Rows are kept: a file that is small already is not compared again.
"""

from __future__ import annotations

import argparse
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np

import numpyro_diffusion as nd
from benchmarks.table import measure
from benchmarks.train.places import HALF, SHIPPED
from benchmarks.train.typical import data
from numpyro_diffusion.classifier import load_classifier, log_prob, save_classifier
from numpyro_diffusion.classifier.classifier import by_head
from numpyro_diffusion.datasets import captioned_scenes, cubes, planar
from numpyro_diffusion.disk import checkpoint

JUDGES = [f"classifiers/{name}" for name in ("cubes_16", "cubes_32", "captioned_scenes_32")]
NAMES = [*(name for name in planar.NAMES if name not in HALF), "cubes_16", *JUDGES]
#: Points that are compared, by the number of axes of one: pictures cost more.
POINTS = {1: 4096, 3: 48}
RATIO = 0.3
HEADER = f"""# Shipped weights: eight bits against half precision

`python benchmarks/train/compact.py`. Bytes of a file before and after. Of densities: log density of data at the least noise, after less before, in nats: mean, standard deviation over points and largest size, beside the
standard deviation of the log density itself (`spread`); `relative`: root mean square of the change of scores over that of scores, of data with noise {RATIO} times the signal. Of judges: `relative`, the same of the probabilities
they give to answers about 512 pictures of their kind; `same`: how often the likeliest answer is the same."""
COLUMNS = ["before", "after", "mean", "deviation", "largest", "spread", "relative", "same"]


@jax.jit
def log_densities_and_scores(density, x, conditions):
    """Log densities [n] at the least noise, and scores at `RATIO`, of points at given signal."""
    least, more = (density.schedule.time(r) for r in (density.resolution, RATIO))
    noise = jax.random.normal(jax.random.key(1), x.shape)

    def both(point, noise, condition):
        given = density if condition is None else density.given(condition)
        at = lambda t, r: density.schedule.alpha(t) * (point + r * noise)
        return given.log_density(at(least, density.resolution), least), jax.grad(given.log_density)(
            at(more, RATIO), more
        )

    return jax.lax.map(lambda a: both(*a), (x, noise, conditions), batch_size=48)


@jax.jit
def log_normalisers(new, old, x):
    """log E[new / old] at every knot of the table of normalisers, over noised data x."""
    noise = jax.random.normal(jax.random.key(2), x.shape)

    def at(r):
        t = old.schedule.time(r)
        y = old.schedule.alpha(t) * (x + r * noise)
        change = jax.vmap(lambda point: new.log_density(point, t) - old.log_density(point, t))(y)
        return jax.nn.logsumexp(change) - jnp.log(len(x))

    return jax.lax.map(at, jnp.exp(old.log_z[0]))


def points(name: str, count: int):
    """Data of a density's kind and their conditions; of captioned scenes without captions."""
    if name.startswith("captioned_scenes"):
        return captioned_scenes.sampler(int(name.split("_")[2]))(jax.random.key(2), count)[0], None
    return jax.tree.map(lambda a: a[:count], data(name))


def compact(name: str) -> dict:
    """Rewrite one density's file, and compare."""
    path = SHIPPED / f"{name}.safetensors"
    old, before, card = nd.load(path), path.stat().st_size, checkpoint.read(path)[1]["card"]
    x, conditions = points(name, POINTS[len(old.event_shape)])
    nd.save(old, path, card=card, dtype="int8")
    new = nd.load(path)
    if name in planar.NAMES:
        new = new._replace(log_z=new.log_z.at[1].add(log_normalisers(new, old, x)))
        nd.save(new, path, card=card, dtype="int8")
    (p, scores), (q, new_scores) = (log_densities_and_scores(d, x, conditions) for d in (old, new))
    change = np.asarray(q - p)
    found = {"mean": change.mean(), "deviation": change.std(), "largest": np.abs(change).max(), "spread": np.std(p)}
    return found | {"before": before, "after": path.stat().st_size, "relative": relative(new_scores, scores)}


def compact_judge(name: str) -> dict:
    """Rewrite one judge's file, and compare what it says of pictures of its kind, asked for a fixed place."""
    path = SHIPPED / f"{name}.safetensors"
    old, before, card = load_classifier(path), path.stat().st_size, checkpoint.read(path)[1]["card"]
    size = old.config.image_shape[0]
    x = (cubes.sampler if "cubes" in name else captioned_scenes.sampler)(size)(jax.random.key(2), 512)[0]
    save_classifier(old, path, card=card, dtype="int8")
    new, found = load_classifier(path), {"before": before, "after": path.stat().st_size}
    p, q = (np.exp(log_prob(judge, x, [0.5, 0.5])) for judge in (old, new))
    answers = [[part.argmax(1) for part in by_head(old.config, a)] if a.ndim > 1 else [a > 0.5] for a in (p, q)]
    return found | {"relative": relative(q, p), "same": np.mean([a == b for a, b in zip(*answers, strict=True)])}


def relative(new, old) -> float:
    """Root mean square of the change over that of the old."""
    return float(np.sqrt(np.mean((np.asarray(new) - np.asarray(old)) ** 2) / np.mean(np.asarray(old) ** 2)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=NAMES, help="densities and judges; all of them if none")
    names = parser.parse_args().names
    rows = [(name, lambda _, name=name: (compact_judge if "/" in name else compact)(name)) for name in names]
    measure("compact", SimpleNamespace(quick=False, seeds=1, only="", fresh=False), rows, HEADER, COLUMNS)
