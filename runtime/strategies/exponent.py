"""How the losses of a network's blocks add up, told from networks that were looked at.

Each block's loss d_i is measured with all other blocks as they were. What a network of many blocks loses is taken to
grow with the p-norm of theirs,

    (sum_i d_i^p)^(1/p),

of which p = 1 is the plain sum, and larger p say that a few blocks that lose much are worse than many that lose little.
For any p the order of networks is that of a sum over blocks, so that an integer program finds the least.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

EXPONENTS = (1.0, 1.5, 2.0, 3.0)
ALIKE = 0.1
"""Costs, relatively, between which the solver chooses by predicted losses."""


def best_exponent(losses: Sequence[Sequence[float]], costs: Sequence[float], accuracies: Sequence[float]) -> float:
    """The p of EXPONENTS by which networks of about the same cost come into the best order.

    Each network has the `losses` of its blocks, a positive cost, and an accuracy. For each pair whose costs are ALIKE
    an order that is wrong counts as much as the accuracies differ. Of exponents that are equally good it is the first.
    """
    logs = np.log(np.asarray(costs, np.float64))
    accurate = np.asarray(accuracies, np.float64)
    first, second = np.nonzero(np.triu(abs(logs[:, None] - logs) <= np.log1p(ALIKE), k=1))
    differences = accurate[first] - accurate[second]

    def wrong(exponent: float) -> float:
        sums = np.array([np.sum(np.asarray(of, np.float64) ** exponent) for of in losses])
        return float(abs(differences[(sums[first] - sums[second]) * differences > 0]).sum())

    return min(EXPONENTS, key=wrong)
