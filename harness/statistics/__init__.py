"""Statistics of a comparison as pure functions on numpy arrays; the persona is the sampling unit.

Start at `table.compare`. No files, no plugins; every formula is stated where it is computed.
"""

from __future__ import annotations

from harness.statistics.effects import Share, hedges_g, share_improved, skewness
from harness.statistics.equivalence import Equivalence, equivalence
from harness.statistics.estimands import Estimand, differences, mean_and_se, persona_means, score, weights
from harness.statistics.family import Comparison, family_comparison
from harness.statistics.few import exact_max_t
from harness.statistics.flips import sign_flip_p, sign_matrix
from harness.statistics.multiple import Simultaneous, holm, max_t
from harness.statistics.paired import Paired, paired_comparison, t_interval
from harness.statistics.pooled import (
    Jackknife,
    f1,
    jackknife,
    paired_jackknife,
    pseudo_values,
    ratio_of_sums,
)
from harness.statistics.power import difference_sd, mde, mde_adjusted, personas_needed, power_at, power_of
from harness.statistics.reference import CAVEAT, ReferenceTest, check_aggregation, reference_test
from harness.statistics.rows import ComparisonRow, ReferenceRow, ScoreRow, score_row
from harness.statistics.scores import PersonaScores, aligned
from harness.statistics.seeds import SeedVariance, WithSeeds, seed_variance, with_seeds
from harness.statistics.shrinkage import Shrunken, sampling_variances, shrunken_estimates
from harness.statistics.subgroups import GroupRow, Subgroups, subgroup_comparison
from harness.statistics.table import compare
from harness.statistics.verdicts import FLAGS, VerdictKind, quantity, verdict

__all__ = [
    "CAVEAT",
    "FLAGS",
    "Comparison",
    "ComparisonRow",
    "Equivalence",
    "Estimand",
    "GroupRow",
    "Jackknife",
    "Paired",
    "PersonaScores",
    "ReferenceRow",
    "ReferenceTest",
    "ScoreRow",
    "SeedVariance",
    "Share",
    "Shrunken",
    "Simultaneous",
    "Subgroups",
    "VerdictKind",
    "WithSeeds",
    "aligned",
    "check_aggregation",
    "compare",
    "difference_sd",
    "differences",
    "equivalence",
    "exact_max_t",
    "f1",
    "family_comparison",
    "hedges_g",
    "holm",
    "jackknife",
    "max_t",
    "mde",
    "mde_adjusted",
    "mean_and_se",
    "paired_comparison",
    "paired_jackknife",
    "persona_means",
    "personas_needed",
    "power_at",
    "power_of",
    "pseudo_values",
    "quantity",
    "ratio_of_sums",
    "reference_test",
    "sampling_variances",
    "score",
    "score_row",
    "seed_variance",
    "share_improved",
    "shrunken_estimates",
    "sign_flip_p",
    "sign_matrix",
    "skewness",
    "subgroup_comparison",
    "t_interval",
    "verdict",
    "weights",
    "with_seeds",
]
