r"""What simulation-based calibration has found: ranks of truths among posterior draws, and whether they are uniform.

Draw the truth from the prior and data from the truth, sample the posterior: then the truth is one draw more of that
posterior. Among n independent draws its rank is uniform on 0..n, so that with F the share of draws below the truth and
V uniform,

.. math:: u = (n F + V) / (n + 1)

is uniform on (0, 1): exactly, for every n. (Draws that equal the truth lie above or below it by chance.)

Weighted particles that share ancestors are worth n draws, the effective number of families of related ones for the
ranks of the draws (`expectations`), which may differ from run to run. F is that of all particles, by weight; taking n
of them would add noise that independent draws do not have.

References:
    Talts et al. (2018), Validating Bayesian inference algorithms with simulation-based calibration. arXiv:1804.06788.
    Saeilynoja, Buerkner, Vehtari (2022), Graphical test for discrete uniformity. arXiv:2103.10522.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import chdtrc

from ..checks.text import columns
from .expectations import Particles, mean_of

if TYPE_CHECKING:
    import xarray as xr  # slow to import

#: Bins of the chi-square test have at least this many simulations, and there are at most that many bins.
LEAST_IN_BIN, MOST_BINS = 5, 20


@dataclasses.dataclass(frozen=True)
class SBCResult:
    """Ranks of truths among posterior draws, over simulations.

    Attributes:
        ranks: By quantity [S, ...], in (0, 1): uniform if posteriors are right. NaN where no chain was left alive.
        num_effective: By quantity [S, ...], effective numbers of draws.
        log_evidence, log_evidence_error: [S], of every simulation.
        has_findings: [S] whether something spoke against the run.
        evaluations_per_chain: [S].
    """

    ranks: dict[str, np.ndarray]
    num_effective: dict[str, np.ndarray]
    log_evidence: np.ndarray
    log_evidence_error: np.ndarray
    has_findings: np.ndarray
    evaluations_per_chain: np.ndarray

    @property
    def num_simulations(self) -> int:
        """Simulations that are done."""
        return len(self.log_evidence)

    def p_values(self) -> dict[str, np.ndarray]:
        """Of a chi-square test of uniform ranks, by quantity [...]."""
        return {name: _chi_square(ranks) for name, ranks in self.ranks.items()}

    def ecdf_p_values(self) -> dict[str, np.ndarray]:
        """Of ArviZ's test of uniformity by the distribution function of the ranks (POT-C), by quantity [...]."""
        from arviz_stats.base import array_stats  # slow to import

        def p_value(ranks):
            p = array_stats.uniformity_test(np.nan_to_num(ranks), axis=0)[0]
            return np.where(np.isnan(ranks).any(axis=0), np.nan, p)

        return {name: p_value(ranks) for name, ranks in self.ranks.items()}

    def to_datatree(self) -> xr.DataTree:
        """ArviZ DataTree: `prior_sbc`, the ranks as `az.plot_ecdf_pit` takes them, `num_effective`, and `runs`."""
        import xarray as xr  # slow to import
        from arviz_base import dict_to_dataset

        groups = {
            name: dict_to_dataset({k: v[None] for k, v in values.items()}, attrs={"description": text})
            for name, values, text in (
                ("prior_sbc", self.ranks, "ranks of truths among posterior draws, uniform on (0, 1)"),
                ("num_effective", self.num_effective, "effective numbers of posterior draws"),
            )
        }
        names = ("log_evidence", "log_evidence_error", "has_findings", "evaluations_per_chain")
        runs = xr.Dataset({name: (("simulation",), np.asarray(getattr(self, name))) for name in names})
        return xr.DataTree.from_dict({**groups, "runs": runs})

    def print_summary(self) -> None:
        """Print by quantity how ranks lie, the least p-values of its numbers, and effective numbers of draws."""
        rows: list[tuple[str, ...]] = [("", "mean", "sd", "chi2 p", "ECDF p", "n_eff")]
        chi_square, ecdf = self.p_values(), self.ecdf_p_values()
        for name, ranks in self.ranks.items():
            size = chi_square[name].size
            label = f"{name} ({size} numbers, least p)" if size > 1 else name
            figures = ranks.mean(), ranks.std(), chi_square[name].min(), ecdf[name].min()
            worth = f"{np.median(self.num_effective[name]):.0f}"
            rows.append((label, *(f"{figure:.3f}" for figure in figures), worth))
        print(
            columns(rows, least=8),
            "uniform ranks have mean 0.500 and sd 0.289",
            f"{self.num_simulations} simulations, {int(np.sum(self.has_findings))} with findings",
            sep="\n",
        )

    def __repr__(self):
        return f"SBCResult({self.num_simulations} simulations of {', '.join(self.ranks)})"


def rank_of(truth, values: np.ndarray, particles: Particles, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rank u [...] of a truth [...] among draws [M, ...], and the number n of draws that they are worth."""
    from scipy.stats import rankdata  # slow to import

    values, truth = np.asarray(values, dtype=float), np.asarray(truth, dtype=float)
    worth = mean_of(rankdata(values, axis=0), particles).num_effective
    worth = np.clip(worth, 1.0, len(values))
    # Among equal ones the truth's place is a matter of chance.
    below, same = (np.tensordot(particles.weight, hit.astype(float), 1) for hit in (values < truth, values == truth))
    rank = worth * below + rng.uniform(size=truth.shape) * (worth * same + 1)
    # NaN where draws are, and the truth cannot be among them.
    return np.where(np.isnan(worth), np.nan, np.clip(rank / (worth + 1), 0.0, 1.0)), worth


def _chi_square(ranks) -> np.ndarray:
    count = len(ranks)
    bins = int(np.clip(count // LEAST_IN_BIN, 2, MOST_BINS))
    unknown = np.isnan(ranks).any(axis=0)
    which = np.minimum((np.nan_to_num(ranks) * bins).astype(int), bins - 1)
    found = np.stack([np.sum(which == i, axis=0) for i in range(bins)])
    p = chdtrc(bins - 1, np.sum((found - count / bins) ** 2, axis=0) / (count / bins))
    return np.where(unknown, np.nan, p)
