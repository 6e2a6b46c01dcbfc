r"""The named compositions of the literature: each the formula that the operators of `nd.Density` would build.

======================== ====================================================================
product                  :math:`\prod_i p_i^{a_i}`
mixture                  :math:`\sum_i w_i p_i`
negation                 :math:`p / q^\alpha`
temper                   :math:`p^{1/T}`
guided                   :math:`p(x) \, p(y | x)^s`
classifier_free_guided   :math:`p(x)^{1-s} \, p(x | c)^s`
compose_conditions       :math:`p(x) \prod_i (p(x | c_i) / p(x))^{w_i}`
harmonic_mean            :math:`p q / (\alpha p + (1 - \alpha) q)`
contrast                 :math:`p^2 / (\alpha p + (1 - \alpha) q)`
sculpt                   :math:`\prod_j p_{y_j} / (\sum_i w_i p_i)^{k - 1}`
tapestry                 :math:`\prod_w p_w(A_w x)^{a_w}`
prompt                   captions with AND, OR and NOT, see `compose.prompts`
======================== ====================================================================

All take densities on one event shape under one noise schedule, and raise ShapeError or ScheduleError for others,
TypeError for what is no density, and ParameterError for a number or vector of numbers out of its range; so they do with
flows in one environment (`gflownet`). Numbers may be traced; their values are then not checked. A sum that has a term
with only a score is sampled by `nd.Reverse()`, and raises ScoreOnlyError where it is asked at a point.

Sources: Du et al. (2023), arXiv:2302.11552; Dhariwal and Nichol (2021), arXiv:2105.05233; Ho and Salimans (2022),
arXiv:2207.12598; Garipov et al. (2023), Compositional Sculpting of Iterative Generative Processes, arXiv:2309.16115.
"""

from .conditions import classifier_free_guided, compose_conditions, guided
from .operators import mixture, negation, product, temper
from .prompts import prompt
from .sculpting import contrast, harmonic_mean, sculpt
from .tapestry import tapestry

__all__ = [
    "classifier_free_guided", "compose_conditions", "contrast", "guided", "harmonic_mean", "mixture", "negation",
    "product", "prompt", "sculpt", "tapestry", "temper",
]  # fmt: skip
