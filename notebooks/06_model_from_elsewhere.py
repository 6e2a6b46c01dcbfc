# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A model from elsewhere
#
# Someone else trained a diffusion model in PyTorch, and what arrives is a file of weights. This notebook takes it from
# there to a sample of a composition with one of our densities, with its evidence: the state dict, the network in JAX,
# a proof that both compute the same, the schedule, a check of conventions, and the run. PyTorch is needed nowhere.

# %%
import tempfile
import warnings
from pathlib import Path

import tqdm

warnings.simplefilter("ignore", tqdm.TqdmWarning)  # it asks for ipywidgets; there are no progress bars here

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import safetensors.numpy
from flax import nnx

import numpyro_diffusion as nd
from numpyro_diffusion.datasets import planar

# %% [markdown]
# ## What arrives
#
# A noise-prediction network of two-dimensional points on a ring of eight modes, a DDPM of 1,000 steps. So that the
# notebook runs anywhere, this cell plays the others' part: it trains a small network for half a minute, and writes the
# file that PyTorch would write, weights [out, in], under the names of its modules, with a counter that no one needs,
# and beside it a few inputs and outputs.

# %%
betas = np.linspace(1e-4, 0.02, 1000)
abar = jnp.asarray(np.cumprod(1 - betas))


class Epsilon(nnx.Module):
    """eps(x [n, 2], step [n]): four linear layers, told sines and cosines of the step."""

    def __init__(self, rngs, width=192):
        self.inp, self.time = nnx.Linear(2, width, rngs=rngs), nnx.Linear(32, width, rngs=rngs)
        self.mid = nnx.List([nnx.Linear(width, width, rngs=rngs) for _ in range(2)])
        self.out = nnx.Linear(width, 2, rngs=rngs)

    def __call__(self, x, step):
        angles = step[:, None] * jnp.geomspace(1.0, 1e-3, 16)
        h = self.inp(x) + self.time(jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1))
        for layer in self.mid:
            h = h + layer(nnx.silu(h))
        return self.out(nnx.silu(h))


def trained(num_steps=6000, batch_size=512):
    graphdef, weights = nnx.split(Epsilon(nnx.Rngs(0)))
    optimiser = optax.adam(optax.cosine_decay_schedule(2e-3, num_steps))

    def loss(weights, key):
        which, when, noise = jax.random.split(key, 3)
        step = jax.random.randint(when, (batch_size,), 0, 1000)
        eps = jax.random.normal(noise, (batch_size, 2))
        signal = abar[step][:, None]
        x = jnp.sqrt(signal) * planar.sampler("ring")(which, batch_size) + jnp.sqrt(1 - signal) * eps
        return jnp.mean((nnx.merge(graphdef, weights)(x, step) - eps) ** 2)

    @jax.jit
    def train(weights):
        def update(carry, key):
            weights, state = carry
            changes, state = optimiser.update(jax.grad(loss)(weights, key), state)
            return (optax.apply_updates(weights, changes), state), None

        keys = jax.random.split(jax.random.key(0), num_steps)
        return jax.lax.scan(update, (weights, optimiser.init(weights)), keys)[0][0]

    return nnx.merge(graphdef, train(weights))


theirs = trained()
layers = {"inp": theirs.inp, "time": theirs.time, "mid.0": theirs.mid[0], "mid.1": theirs.mid[1], "out": theirs.out}
state_dict = {"num_updates": np.array(6000)}
for name, layer in layers.items():
    state_dict[f"model.{name}.weight"] = np.ascontiguousarray(np.asarray(layer.kernel[...]).T)
    state_dict[f"model.{name}.bias"] = np.asarray(layer.bias[...])
folder = Path(tempfile.mkdtemp())
safetensors.numpy.save_file(state_dict, folder / "ring.safetensors")
inputs = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32), np.array([0, 10, 500, 999])
outputs = np.asarray(theirs(*inputs))

# %% [markdown]
# ## 1. The state dict, and the network in JAX
#
# A safetensors file is names and arrays; nothing is unpickled. The network is written in flax, here as above. Weights
# go by name; what does not fit is named, every one, with both shapes.

# %%
state_dict = nd.read_state_dict(folder / "ring.safetensors")
network = nnx.eval_shape(lambda: Epsilon(nnx.Rngs(0)))  # names and shapes; no weights are drawn
try:
    nd.load_state_dict(network, state_dict)
except nd.errors.WeightsError as error:
    print(error)

# %% [markdown]
# A table of names says the rest. That shapes fit is no proof; stored outputs are.

# %%
epsilon = nd.load_state_dict(network, state_dict, names={"model.*": "*", "num_updates": None})
print(f"largest difference {nd.check_outputs(epsilon, inputs, outputs):.1e}")

# %% [markdown]
# ## 2. A density
#
# The weights do not say what they were trained on. The schedule comes from the betas (or from the `scheduler_config.json`
# of `diffusers`, by `nd.NoiseSchedule.from_diffusers_config`); the network is told the step as a whole number, and takes
# batches.

# %%
schedule = nd.NoiseSchedule.from_betas(betas)
points = planar.sampler("ring")(jax.random.key(1), 2000)
theirs = nd.from_noise_prediction(
    epsilon, (2,), schedule, timesteps="integer", batched=True, data=points, name="theirs"
)
print(theirs, schedule, sep="\n")

# %% [markdown]
# Between its 1,000 levels and ours there is an exact conversion, so that the closed form of the ring can be laid beside it.

# %%
ring = planar.exact("ring", schedule)
for t in (0.7, 0.3, 0.1):
    x = ring.sample(jax.random.key(2), 1000, t)
    error = np.sqrt(np.mean((theirs.score(x, t) - ring.score(x, t)) ** 2)) / np.std(ring.score(x, t))
    print(f"t = {t}: noise-to-signal ratio {schedule.noise_to_signal(t):.3f}, relative error of the score {error:.3f}")

# %% [markdown]
# Without a closed form, data tell as much: `nd.check_model` noises them and asks the network for the noise, level by level,
# beside the best that any network could do. It ran when the density was made from `points`, and would have warned. Told a
# wrong convention, here that steps run the other way, it says which one it looks like.

# %%
print(nd.check_model(theirs, points))
wrong = nd.from_noise_prediction(
    lambda x, step: epsilon(x, 999 - step), (2,), schedule, timesteps="integer", batched=True, name="backwards"
)
print(nd.check_model(wrong, points, num_points=128))

# %% [markdown]
# ## 3. Samples of it alone
#
# Reverse diffusion is what the network was made for. HMC works, too, though there is no log density: a Metropolis ratio is
# the line integral of the score along the trajectory, and so step sizes are tuned and acceptance means something.

# %%
runs = {
    "reverse diffusion": nd.anneal(
        jax.random.key(3), theirs, nd.Reverse(), num_chains=500, levels=200, progress_bar=False
    ),
    "HMC": nd.anneal(jax.random.key(4), theirs, nd.HMC(), num_chains=500, progress_bar=False),
}
runs["HMC"].print_summary()

# %% [markdown]
# ## 4. Composed with ours
#
# The shipped bar is an energy that we trained under another schedule. `with_schedule` converts it, exactly, and then the
# two are factors of one formula. Runs of score models have weights and an evidence as well: the log of the product's
# integral, -0.471 for the closed forms.

# %%
bar = nd.load_pretrained("bar")
target = theirs * bar.with_schedule(schedule)
runs["product"] = nd.anneal(jax.random.key(5), target, nd.HMC(), num_chains=500, progress_bar=False)
runs["product"].print_summary()
for name, truth in (("HMC", 0.0), ("product", -0.471)):
    run = runs[name]
    print(
        f"{run.density}: log evidence {run.log_evidence:.3f} +- {run.log_evidence_error:.3f}; of the closed forms {truth}"
    )

# %% [markdown]
# The errors are those of the runs, not of the network: alone its evidence is near zero, but in the product it is off by
# more than them. Where that comes from the table of `check_model` says: the excess is largest at noise-to-signal ratios of 0.03 to 0.1, the width of the modes, where a
# network of half a minute's training blurs them. An evidence of a score model is as good as its scores. `nd.distil`
# turns one into an energy whose normaliser is known.

# %%
fig, axes = plt.subplots(1, 3, figsize=(10.5, 3.8), layout="constrained")
for ax, (name, run) in zip(axes, runs.items(), strict=True):
    ax.scatter(*np.asarray(run.samples).T, s=3, alpha=0.5)
    ax.set(title=f"{run.density}: {name}", xlim=(-1.1, 1.1), ylim=(-1.1, 1.1), aspect="equal")

# %% [markdown]
# ## What is different with images
#
# Nothing but size. `docs/how_to_pytorch_weights.md` does the same with a U-Net of MNIST that others trained, 606,852
# weights with convolutions, transposed ones and norms, and `benchmarks/any_model/outside_models.py` samples, guides and
# multiplies it, and says what its flaws do.

# %% [markdown]
# ## Exercises
#
# 1. Tell the adapter a wrong time convention, and read what `nd.check_model` says.
# 2. Read the density under another schedule by `with_schedule`. Which numbers stay what they were?
# 3. Give `nd.from_score` a score with a curl of your own. Which of the findings sees it?
