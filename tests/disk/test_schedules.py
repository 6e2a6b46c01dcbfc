"""Files that hold a schedule from elsewhere: it comes back bit for bit, and nonsense is refused."""

import numpy as np
import pytest
from densities import network

import numpyro_diffusion as nd
from numpyro_diffusion.disk import checkpoint
from numpyro_diffusion.errors import CheckpointError

TABLES = {
    ("schedule", "table"): [
        [], [1.0], [2.0, 1.0], [1.0, 1.0], [-1.0, 1.0], [0.0, 1.0], [True, 2.0], ["1", "2"], None, "text", 3,
        [1e-30, 1.0], [1.0, 1e30], [[1.0, 2.0]], list(range(1, 100_003)),
    ],
    ("schedule", "scaling"): ["", "cosine", "\x1b[31mred", None, 3],
    ("schedule", "is_discrete"): [0, "yes", None],
    ("schedule", "unheard_of"): [1],
}  # fmt: skip


@pytest.mark.parametrize("where", TABLES, ids=".".join)
def test_tables_of_no_schedule(path, where):
    nd.save(network().with_schedule(nd.NoiseSchedule.from_sigmas([0.1, 1.0, 10.0])), path)
    arrays, config = checkpoint.read(path)
    section, field = where
    for value in TABLES[where]:
        checkpoint.write(path, arrays, config | {section: config[section] | {field: value}})
        with pytest.raises(CheckpointError, match=path.name) as caught:
            nd.load(path)
        assert str(caught.value).isprintable() and len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "schedule",
    [
        nd.NoiseSchedule.from_betas(np.linspace(1e-4, 0.02, 1000)),
        nd.NoiseSchedule.from_log_snr(lambda t: 9 - 18 * t, "linear_flow"),
        nd.NoiseSchedule.linear_flow(123.4),
    ],
    ids=["betas", "log_snr", "flow"],
)
def test_schedules_from_elsewhere_come_back_bit_for_bit(path, schedule):
    density = network().with_schedule(schedule)
    nd.save(density, path)
    again = nd.load(path)
    assert again.schedule == schedule and hash(again.schedule) == hash(schedule)
    np.testing.assert_array_equal(again.score(np.ones(2), 0.3), density.score(np.ones(2), 0.3))
