"""Train the densities that ship with the package, and write their cards.

    python benchmarks/train/pretrained.py                  # all of them
    python benchmarks/train/pretrained.py ring ring_paper  # some
    python benchmarks/train/pretrained.py --cards          # measure again and rewrite the cards

A name is a planar density ("ring"), with the suffix "_paper" for the uncalibrated energy of Du et al. (2023) and
"_score" for a score-only model, or "digits". Interrupted runs resume. Calibrated densities end with the last correction,
`nd.recalibrate`, whose effect stands in the card.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time

import jax
import numpy as np

import numpyro_diffusion as nd
from benchmarks.train.places import folder, stored
from benchmarks.train.typical import measure as measure_typical
from numpyro_diffusion.datasets import digits, planar

SEED = 0
DIGITS_EFFORT = {"num_chains": 1_000, "num_steps": 3, "levels_per_knot": 2}
CLASS_CHAINS = 700
VARIANTS = ("", "_paper", "_score")
NAMES = [*(f"{name}{variant}" for variant in VARIANTS for name in planar.NAMES), "digits"]
# The paper's network (residual MLP, 4 blocks, 128 wide), and no more samples than its 15,000 Adam steps of 1,000.
PLANAR = nd.NetworkConfig(width=128, num_blocks=4)
CALIBRATED = nd.TrainingConfig(num_steps=12_000, batch_size=1024, learning_rate=2e-3, weighting="score")
USUAL = nd.TrainingConfig(num_steps=4_000, batch_size=512, learning_rate=1e-3)
# Chosen on the last 250 training scans; the record is in results/digits_choice.md. The base has the classes, the
# potential is common to them.
DIGITS = nd.PatchConfig(grid=(8, 8), width=32)
DIGITS_TRAINING = nd.TrainingConfig(
    num_steps=4_000, batch_size=256, learning_rate=5e-3, time_score_weight=0.1, weighting="score"
)
DIGITS_BASE = {"num_components": 2, "shrinkage": 5.0, "added_variance": digits.STEP**2 / 12, "num_folds": 5}
#: What the base's covariances are multiplied by after training, so that intervals cover scans it has not seen.
DIGITS_WIDENING = 1.4


def settings(name: str) -> tuple[str, dict]:
    """Planar density the name stands for, and the arguments of `nd.fit` beside its data."""
    if name == "digits":
        fixed = {"sigma_min": 0.03, "sigma_max": 20.0, "network": DIGITS, "training": DIGITS_TRAINING}
        return name, fixed
    base = name.removesuffix("_paper").removesuffix("_score")
    variant = name.removeprefix(base)
    return base, {
        "model": "score" if variant == "_score" else "energy",
        "parameterisation": "l2",
        "calibrated": variant == "",
        "sigma_min": 0.0025,
        "network": PLANAR,
        "training": USUAL if variant else CALIBRATED,
    }


def train(name: str) -> None:
    """Train one density, take out its measured normaliser, and write weights and card."""
    base, arguments = settings(name)
    data = digits.labelled_sampler if base == "digits" else planar.sampler(base)
    working = folder(name) / f".{name}.training"
    start = time.perf_counter()
    mixture = digits_base() if base == "digits" else None
    density = nd.fit(jax.random.key(SEED), data, name=name, base=mixture, checkpoint_path=working, **arguments)
    if mixture is not None:
        density = density._replace(base=mixture.widened(DIGITS_WIDENING))
    card = {
        "name": name,
        "script": f"python benchmarks/train/pretrained.py {name}",
        "seed": SEED,
        "data": "scikit-learn's 8x8 digits, first 1,500 of a fixed shuffle" if base == "digits" else f"planar {base}",
        "fit": {k: dataclasses.asdict(v) if dataclasses.is_dataclass(v) else v for k, v in arguments.items()},  # pyright: ignore
        **({"base": DIGITS_BASE | {"widened": DIGITS_WIDENING}} if base == "digits" else {}),
        "training_seconds": round(time.perf_counter() - start, 1),
    }
    nd.save(density, folder(name) / f"{name}.safetensors", card=card, dtype=stored(name))
    finish(name, card)
    working.unlink(missing_ok=True)


def finish(name: str, card: dict) -> None:
    """Recalibrate the stored weights where that applies, measure, and rewrite file and card."""
    base, _ = settings(name)
    density = nd.load(folder(name) / f"{name}.safetensors")
    if isinstance(density, nd.EnergyDensity) and density.is_calibrated:
        density = density._replace(log_z=density.log_z.at[1].set(0.0), class_log_z=None)
        card["figures"] = {"as trained": figures(density, base)}
        # In 64 dimensions: smaller steps between levels, more moves at each.
        effort = DIGITS_EFFORT if base == "digits" else {"num_chains": 20_000}
        start = time.perf_counter()
        density = nd.recalibrate(jax.random.key(SEED + 1), density, progress_bar=False, **effort)
        if base == "digits":
            card["figures"]["recalibrated, without classes"] = figures(density, base)
            density = density._replace(class_log_z=class_normalisers(density))
        card["recalibration_seconds"] = round(time.perf_counter() - start, 1)
        card["figures"]["recalibrated"] = figures(density, base)
    nd.save(density, folder(name) / f"{name}.safetensors", card=card, dtype=stored(name))
    (folder(name) / f"{name}.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    print(name, json.dumps(card.get("figures")), flush=True)
    # Anew: the digits' base was widened after training, and weights were rounded.
    measure_typical(name)


def digits_base(split: str = "train") -> nd.MixtureBase:
    """The Gaussian mixture under the digits density, fitted to a split."""
    x, labels = digits.images(split)
    return nd.MixtureBase.fit(x, digits.one_hot(labels), **DIGITS_BASE)


def class_normalisers(density) -> jax.Array:
    """[10, knots]: what the log normaliser of each class has more than that of all."""
    rows = []
    for j, one in enumerate(np.eye(10)):
        key = jax.random.key(SEED + 2 + j)
        given = nd.recalibrate(
            key, density.given(one), progress_bar=False, **DIGITS_EFFORT | {"num_chains": CLASS_CHAINS}
        )
        rows.append(given.log_z[1] - density.log_z[1])
    return jax.numpy.stack(rows)


def figures(density, base: str) -> dict:
    """What the card says: normaliser, mode weights, and the mean log likelihood of fresh data beside the truth's."""
    if base == "digits":
        result = {}
        for split, where in (("test", "held_out"), ("train", "train")):
            x, labels = digits.images(split)
            x = digits.dequantise(jax.random.key(7), x)
            noisy = x + 0.03 * jax.random.normal(jax.random.key(8), x.shape)
            by_class = digits.by_class(density, noisy)
            result[f"{where}_log_likelihood"] = round(float(density.log_prob(noisy, 0.0).mean()), 3)
            given_label = np.take_along_axis(by_class, labels[:, None], axis=1)
            result[f"{where}_log_likelihood_given_class"] = round(float(given_label.mean()), 3)
            result[f"{where}_accuracy"] = round(float(np.mean(by_class.argmax(1) == labels)), 4)
        return result
    exact = planar.exact(base)
    x = np.asarray(exact.sample(jax.random.key(7), 20_000))
    noisy = x + 0.0025 * np.random.default_rng(8).standard_normal(x.shape)
    report = nd.calibration_report(density, modes=planar.MODES.get(base))
    result = {
        "largest |Z - 1|": round(report.drift, 5),
        "log_likelihood": round(float(density.log_prob(noisy, 0.0).mean()), 4),
        "log_likelihood of the truth": round(float(exact.log_prob(x, 0.0).mean()), 4),
    }
    if base in planar.MODES:
        result["largest mode weight error"] = round(report.mode_weight_error(), 5)
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=NAMES, metavar="name", help="densities; all of them if none")
    parser.add_argument("--cards", action="store_true", help="measure again and rewrite the cards")
    options = parser.parse_args()
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"no density is called {', '.join(sorted(unknown))}. There are {', '.join(NAMES)}.")
    for name in options.names:
        if not options.cards:
            train(name)
        elif (folder(name) / f"{name}.safetensors").exists():
            finish(name, nd.pretrained_card(name))
