"""A first hour with an installed wheel: the first example of the README, and what each missing extra says.

    python .ci/first_hour.py README.md

Where an extra's library is installed, its line says so. The exit code is 1 if an error is not the one that names it.
"""

import re
import sys
import time
from pathlib import Path

start = time.perf_counter()
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import numpyro  # noqa: E402
import numpyro.distributions as dist  # noqa: E402

import numpyro_diffusion as nd  # noqa: E402

print(f"import: {time.perf_counter() - start:.1f} s, {Path(nd.__file__).parent}")
block = re.findall(r"^```python\n(.*?)^```", Path(sys.argv[1]).read_text("utf-8"), re.MULTILINE | re.DOTALL)[0]
names, start = {}, time.perf_counter()
exec(compile(block, "README.md", "exec"), names)
print(f"first example: {time.perf_counter() - start:.1f} s, log evidence {names['run'].log_evidence:.3f} (true -0.471)")
assert abs(names["run"].log_evidence - -0.471) < 0.2

key, ring = jax.random.key(0), nd.load_pretrained("ring")


def discrete(y):
    x, k = numpyro.sample("x", nd.DiffusionPrior(ring)), numpyro.sample("k", dist.Bernoulli(0.5))
    numpyro.sample("y", dist.Normal(x[0] + k, 0.1), obs=y)


#: What needs the library of each extra.
USES = {
    "plots": [
        lambda: nd.plots.plot_samples(np.zeros((10, 2))), lambda: nd.plots.plot_annealing(names["run"]),
    ],
    "history": [lambda: nd.anneal(key, ring, nd.HMC(), num_chains=10, keep_history="history.zarr")],
    "enumerate": [lambda: nd.AnnealedMCMC(discrete, nd.HMC(), num_chains=10).run(key, jnp.array(0.1))],
    "molecules": [lambda: nd.gflownet.molecules.MoleculeEnvironment(2)],
    "digits": [lambda: nd.datasets.coloured_digits.sampler("m1")],
}  # fmt: skip
wrong = 0
for extra, uses in USES.items():
    for use in uses:
        try:
            use()
            print(f"{extra}: {nd.errors.EXTRAS[extra]} is there")
        except nd.errors.MissingLibraryError as error:
            wrong += f"pip install 'numpyro-diffusion[{extra}]'" not in str(error)
            print(f"{extra}: {error}")
        except Exception as error:
            wrong += 1
            print(f"{extra}: WRONG ERROR {type(error).__name__}: {error}")
raise SystemExit(bool(wrong))
