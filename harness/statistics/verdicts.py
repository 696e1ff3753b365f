"""The wording of a verdict, and of the flags beside it. Figures come in; nothing is computed here.

There is no "no difference": what is not found is inconclusive, with what could have been found.
"""

from __future__ import annotations

from typing import Literal

VerdictKind = Literal["better", "worse", "equivalent", "inconclusive", "identical", "insufficient", "not comparable"]

INSUFFICIENT = "insufficient personas"
ONE_SEED = "conditional on one training seed"

FLAGS: dict[str, str] = {
    "weighting-sensitive": "micro and macro means give different verdicts",
    "few-personas": "6 to 9 personas: exact sign flips of the raw differences",
    "skewed": "fewer than 50 personas and |skewness| > 1: intervals may be off",
    "one-seed": "one training seed each: another seed may change the verdict",
    "descriptive": "fewer than 6 personas: the figures are descriptive, nothing is tested",
    "not-tuned-alike": "the method and the baseline were not tuned in one study with equally many trials",
    "not-computed-alike": "made on another processor or device, with other threads or another torch: rounding differs",
    "baseline-still-learning": "the loss of the baseline still fell by 1 % or more in its last epoch: train it longer",
    "no-spread": "all personas differ by the same amount: the standard error is 0",
}


def quantity(value: float, unit: str = "pt") -> str:
    """A number for a sentence: two decimals, or two digits where those would be lost; names pt and nats."""
    text = f"{value:.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:.2g}"
    if float(text) == 0:
        text = text.lstrip("-")
    return f"{text} {unit}" if unit != "raw" else text


def verdict(
    baseline: str,
    delta: float,
    interval: tuple[float, float] | None,
    *,
    p_adj: float | None,
    n_personas: int,
    alpha: float = 0.05,
    mde: float | None = None,
    margin: float | None = None,
    equivalent: bool | None = None,
    identical: bool = False,
    one_seed: bool = False,
    unit: str = "pt",
    higher_is_better: bool = True,
    not_comparable: str = "",
) -> tuple[VerdictKind, str]:
    """The verdict as (kind, sentence), in the words of docs/explanations.md.

    delta, interval, mde, margin   in the unit of the sentence (points for "pt"); the simultaneous interval
    p_adj                          decides, as does the interval: it excludes 0 exactly when p_adj < alpha
    equivalent                     stands beside better and worse, and alone only where neither is shown
    one_seed                       method and baseline have one training seed each
    not_comparable                 the reason, e.g. "example sets differ"; it wins over everything else
    """
    if not_comparable:
        return "not comparable", f"not comparable ({not_comparable})"
    if n_personas < 6 or p_adj is None or interval is None:
        return "insufficient", INSUFFICIENT
    if identical:
        return "identical", "identical"
    beside = ""
    if equivalent and margin is not None:
        beside = f"equivalent within +-{margin:g}" + (f" {unit}" if unit != "raw" else "")
    kind: VerdictKind
    if p_adj < alpha:
        kind = "better" if (delta > 0) == higher_is_better else "worse"
        low, high = (quantity(bound, "raw") for bound in interval)  # the unit stands once, after the difference
        level = f"{100 * (1 - alpha):g} % simultaneous CI"
        sentence = f"{kind} than {baseline} by {quantity(abs(delta), unit)} ({level} {low} to {high})"
        sentence += f", {beside}" if beside else ""
    elif beside:
        kind, sentence = "equivalent", beside
    else:
        kind = "inconclusive"
        sentence = kind if mde is None else f"inconclusive (could detect >= {quantity(mde, unit)})"
    return kind, f"{sentence}, {ONE_SEED}" if one_seed else sentence
