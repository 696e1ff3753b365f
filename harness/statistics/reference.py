"""A mean against a fixed published score. It tests a constant, and says so.

The comparison that counts is the paired one against the measured baseline (`paired`, `family`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from harness.errors import HarnessError
from harness.statistics.distributions import t_above

CAVEAT = (
    "tests a constant: it ignores the published run's own seed, decoding and item sampling, so it is not "
    "evidence of beating the published system"
)


@dataclass(frozen=True, slots=True)
class ReferenceTest:
    """delta = mean - score, and two-sided t-tests; the `_with_se` pair only where the published se is known.

    t is None where there is no spread to divide by (then p is 0, or 1 for delta = 0).
    """

    delta: float
    t: float | None
    p: float
    t_with_se: float | None
    p_with_se: float | None
    caveat: str = CAVEAT


def reference_test(
    mean: float,
    se: float,
    personas: int,
    *,
    score: float,
    aggregation: str,
    estimand: str,
    reference_se: float | None = None,
    source: str = "",
) -> ReferenceTest:
    """Test a method's mean against a published constant.

        t = (mean - score) / se_cluster,  two-sided, df = G - 1;   second version: sqrt(se^2 + reference_se^2)

    mean, se, score, reference_se on one scale; `personas` is G.
    Raises HarnessError if the reference is a mean of another kind than `estimand`, or G < 2.
    Source: docs/statistics.md, "Against a published score".
    """
    check_aggregation(aggregation, estimand, score, source)
    if personas < 2:
        raise HarnessError(f"a test against a reference score needs at least 2 personas, got {personas}")
    delta = mean - score
    t, p = _t_test(delta, se, personas - 1)
    if reference_se is None:
        return ReferenceTest(delta, t, p, None, None)
    return ReferenceTest(delta, t, p, *_t_test(delta, math.hypot(se, reference_se), personas - 1))


def check_aggregation(aggregation: str, estimand: str, score: float, source: str = "") -> None:
    """Raise HarnessError if a published score is a mean of another kind than this comparison's."""
    if aggregation != estimand:
        raise HarnessError(
            f"the reference score {score:g}{f' ({source})' if source else ''} is a {aggregation} mean, but "
            f"the estimand here is {estimand}: choose --estimand {aggregation}, or leave the reference out"
        )


def _t_test(delta: float, se: float, df: int) -> tuple[float | None, float]:
    if not se > 0:
        return None, 1.0 if delta == 0 else 0.0
    t = delta / se
    return t, float(2 * t_above(abs(t), df))
