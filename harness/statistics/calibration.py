"""Does the machinery keep its promises? Simulated experiments of known truth against accepted ranges.

`harness bench statistics` runs 2 000 of each, the test suite 500. Called are the functions that decide real
verdicts; nothing here is used by a comparison.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from functools import partial

import numpy as np

from harness.statistics.distributions import normal_above, t_quantile
from harness.statistics.estimands import Estimand, mean_and_se, weights
from harness.statistics.family import family_comparison
from harness.statistics.flips import adjusted, ratio, sign_matrix, studentised

ALPHA = 0.05
INTERACTION_SD, DIALOGUE_SD, REPLY_SD, SEED_SD = 0.025, 0.05, 0.21, 0.006
DIALOGUES = 10  # of 1 to 5 replies each: about 30 replies per persona, unequal
PERSONAS = (10, 24, 200)
METHODS = 8
_COLUMNS = 400  # experiments x methods flipped at once: bounds the memory

# What is measured -> lowest and highest accepted value, and the nominal level (docs/statistics.md).
TARGETS: dict[str, tuple[float | None, float | None, float]] = {
    "false positives": (0.035, 0.065, ALPHA),
    "coverage of the 95 % interval": (0.935, 0.965, 0.95),
    "verdicts given": (None, 0.0, 0.0),
    "false positives of a reply-level t-test": (0.09, None, 0.09),
    "family-wise error, global null": (0.035, 0.065, ALPHA),
    "family-wise error on the null half": (None, 0.065, ALPHA),
    "simultaneous coverage, effects of 4 sd": (0.93, None, 0.95),
    "false positives, 3 seeds against 3": (None, 0.07, ALPHA),
}

OnProgress = Callable[[int, int, str], None]  # simulated tests done, of how many, what is simulated now
Step = Callable[[int], None]  # so many more are done
Part = Callable[[int, str, Step], list[dict]]


def rng_for(name: str) -> np.random.Generator:
    """A generator whose seed is the SHA-256 of a name: seeds are not found by trying."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big"))


def dialogue_sizes(rng: np.random.Generator, experiments: int, personas: int) -> np.ndarray:
    """Replies per dialogue [E, G, D]."""
    return rng.integers(1, 6, size=(experiments, personas, DIALOGUES))


def method_sums(rng: np.random.Generator, sizes: np.ndarray) -> np.ndarray:
    """Summed scores [E, G] of one method without effect: persona x method, dialogue and reply noise.

    Drawn as n a + sum_d t_d b_d + sqrt(n) e, which has exactly the distribution of summed replies. The
    persona's own level is left out: it is the same for method and baseline.
    """
    n = sizes.sum(-1).astype(float)
    squares = (sizes**2).sum(-1)
    draw = rng.standard_normal((3, *n.shape))
    return n * INTERACTION_SD * draw[0] + np.sqrt(squares) * DIALOGUE_SD * draw[1] + np.sqrt(n) * REPLY_SD * draw[2]


def simulate_family(
    rng: np.random.Generator, experiments: int, personas: int, methods: int, effects: np.ndarray | float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Differences of K methods to one shared baseline: d [E, K, G], n [E, G]; effects [K] are added to d."""
    sizes = dialogue_sizes(rng, experiments, personas)
    n = sizes.sum(-1).astype(float)
    baseline = method_sums(rng, sizes)
    sums = np.stack([method_sums(rng, sizes) - baseline for _ in range(methods)], axis=1)
    return sums / n[:, None] + np.broadcast_to(np.asarray(effects, dtype=float), (methods,))[:, None], n


def decide(
    d: np.ndarray, n: np.ndarray, estimand: Estimand, signs: np.ndarray, step: Step = lambda _: None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """`family_comparison` of many experiments at once (G >= 10, one seed): delta, se, p_adj [E, K], c [E]."""
    _, methods, personas = d.shape
    w = weights(n, estimand)[:, None, :] * np.ones_like(d)  # [E, K, G]
    delta, se = mean_and_se(d, w)
    residuals = (w * (d - delta[..., None])).reshape(-1, personas).T  # [G, E K]
    columns = w.reshape(-1, personas).T
    block = max(_COLUMNS // methods, 1) * methods
    maxima = []
    for i in range(0, residuals.shape[1], block):
        statistics = studentised(residuals[:, i : i + block], columns[:, i : i + block], signs)
        maxima.append(statistics.reshape(signs.shape[0], -1, methods).max(2))
        step(statistics.shape[1])
    p, c = adjusted(np.abs(ratio(delta, se)), np.concatenate(maxima, axis=1), ALPHA)  # maxima [R, E]
    return delta, se, p, c


def run_calibration(
    n_experiments: int = 2_000, progress: OnProgress | None = None, *, flips: int = 9_999
) -> list[dict]:
    """All calibration targets: rows {what, target, measured, ok, experiments, first}.

    n_experiments  2 000 for the acceptance: the two-sided limits are its nominal level +- 3 Monte-Carlo
                   standard deviations, and with fewer experiments they widen to the same 3 of their own
    flips          sign flips per test where they are sampled (G > 15)

    Every part draws from its own name. Limits of 3 standard deviations are missed by chance once in 400 rows:
    so a row that misses is measured again, once, with ten times the experiments, and that figure decides;
    `first` then holds the one that missed.
    """
    parts: list[tuple[str, int, Part]] = []  # name, tests per experiment, what it does
    for personas in PERSONAS:
        for estimand in ("micro", "macro"):
            part = partial(false_positives, personas=personas, estimand=estimand, flips=flips)
            parts.append((f"false positives G = {personas}, {estimand}", 1, part))
    parts.append(("five personas", 1, no_verdict))
    parts.append(("naive reply-level t-test", 1, naive))
    for personas in (24, 200):
        part = partial(family_wise, personas=personas, flips=flips)
        parts.append((f"family-wise error G = {personas}", 2 * METHODS, part))
    for personas in (24, 200):
        parts.append((f"seeds G = {personas}", 1, partial(seeds_as_factor, personas=personas, flips=flips)))
    done, total, now = 0, n_experiments * sum(tests for _, tests, _ in parts), ""

    def step(tests: int) -> None:
        nonlocal done
        done += tests
        if progress:
            progress(done, total, now)

    rows: list[dict] = []
    for name, tests, part in parts:
        now = name
        step(0)
        measured = part(n_experiments, name, step)
        if not all(row["ok"] for row in measured):
            total += 10 * n_experiments * tests
            now = f"{name}, again with {10 * n_experiments} experiments"
            again = part(10 * n_experiments, f"{name}, again", step)
            measured = [
                row if row["ok"] else {**second, "first": row["measured"]}
                for row, second in zip(measured, again, strict=True)
            ]
        rows += measured
    return rows


def false_positives(
    experiments: int, name: str, step: Step = lambda _: None, *, personas: int, estimand: Estimand, flips: int
) -> list[dict]:
    """No true difference, K = 1: rejections by p_adj, and coverage of the 95 % t interval."""
    rng = rng_for(name)
    d, n = simulate_family(rng, experiments, personas, 1)
    signs = sign_matrix(personas, flips, int(rng.integers(2**31)))
    delta, se, p, _ = decide(d, n, estimand, signs, step)
    covered = np.abs(delta) <= t_quantile(0.975, personas - 1) * se
    where = f"G = {personas}, {estimand}"
    return [
        _row("false positives", where, float((p < ALPHA).mean()), experiments),
        _row("coverage of the 95 % interval", where, float(covered.mean()), experiments),
    ]


def no_verdict(experiments: int, name: str, step: Step = lambda _: None) -> list[dict]:
    """G = 5: the share of experiments with any p-value or interval; it must be 0, whatever the effect."""
    d, n = simulate_family(rng_for(name), experiments, 5, 1, 0.1)
    tested = [
        family_comparison([d[i, 0] * n[i]], np.zeros(5), n[i], "micro")[0].p_adj is not None for i in range(experiments)
    ]
    step(experiments)
    return [_row("verdicts given", "G = 5", float(np.mean(tested)), experiments)]


def naive(experiments: int, name: str, step: Step = lambda _: None, *, personas: int = 200) -> list[dict]:
    """The reply-level paired t-test on nested data: it must be seen to fail."""
    rng = rng_for(name)
    rejected = 0
    for _ in range(experiments):
        sizes = dialogue_sizes(rng, 1, personas)[0]
        per_dialogue = np.repeat(rng.standard_normal(personas) * INTERACTION_SD, DIALOGUES)
        per_dialogue = per_dialogue + rng.standard_normal(per_dialogue.size) * DIALOGUE_SD
        # A difference of two methods has sqrt(2) times the noise of one; t does not see a common factor.
        replies = np.repeat(per_dialogue, sizes.ravel())
        replies += rng.standard_normal(replies.size) * REPLY_SD
        t = replies.mean() / (replies.std(ddof=1) / math.sqrt(replies.size))
        rejected += int(2 * normal_above(abs(t)) < ALPHA)  # about 6 000 degrees of freedom
        step(1)
    return [_row("false positives of a reply-level t-test", f"G = {personas}", rejected / experiments, experiments)]


def family_wise(
    experiments: int, name: str, step: Step = lambda _: None, *, personas: int, flips: int, methods: int = METHODS
) -> list[dict]:
    """Family-wise error under the global null and on the null half beside true effects; joint coverage."""
    rng = rng_for(name)
    signs = sign_matrix(personas, flips, int(rng.integers(2**31)))
    d, n = simulate_family(rng, experiments, personas, methods)
    null = float((decide(d, n, "micro", signs, step)[2] < ALPHA).any(1).mean())
    sd = math.sqrt(2 * (INTERACTION_SD**2 + DIALOGUE_SD**2 / DIALOGUES + REPLY_SD**2 / 30))
    effects = np.where(np.arange(methods) < methods // 2, 4 * sd, 0.0)
    d, n = simulate_family(rng, experiments, personas, methods, effects)
    delta, se, p, c = decide(d, n, "micro", signs, step)
    half = float((p[:, methods // 2 :] < ALPHA).any(1).mean())
    covered = float((np.abs(delta - effects) <= c[:, None] * se).all(1).mean())
    where = f"K = {methods}, G = {personas}"
    return [
        _row("family-wise error, global null", where, null, experiments),
        _row("family-wise error on the null half", where, half, experiments),
        _row("simultaneous coverage, effects of 4 sd", where, covered, experiments),
    ]


def seeds_as_factor(
    experiments: int, name: str, step: Step = lambda _: None, *, personas: int, flips: int, seeds: int = 3
) -> list[dict]:
    """Three training seeds against three, seed sd .006, no true difference: rejections by p_adj.

    1 999 flips at most: they are drawn once for all experiments, and each is a comparison of its own.
    """
    rng = rng_for(name)
    sizes = dialogue_sizes(rng, experiments, personas)
    n = sizes.sum(-1).astype(float)
    rejected = 0
    signs = sign_matrix(personas, min(flips, 1_999), int(rng.integers(2**31)))

    def trained() -> np.ndarray:
        """[E, S, G]: what the method is stays over seeds, the reply noise and the seed's own luck do not."""
        kept = n * INTERACTION_SD * rng.standard_normal(n.shape)
        squares = (sizes**2).sum(-1)
        runs = [
            kept
            + np.sqrt(squares) * DIALOGUE_SD * rng.standard_normal(n.shape)
            + np.sqrt(n) * REPLY_SD * rng.standard_normal(n.shape)
            + n * SEED_SD * rng.standard_normal((experiments, 1))
            for _ in range(seeds)
        ]
        return np.stack(runs, axis=1)

    method, baseline = trained(), trained()
    for i in range(experiments):
        result = family_comparison([method[i]], baseline[i], n[i], "micro", alpha=ALPHA, signs=signs)[0]
        rejected += int(result.p_adj is not None and result.p_adj < ALPHA)
        step(1)
    what = f"false positives, {seeds} seeds against {seeds}"
    return [_row(what, f"G = {personas}", rejected / experiments, experiments)]


def limits(what: str, experiments: int) -> tuple[float | None, float | None]:
    """Lowest and highest accepted value; with fewer than 2 000 experiments chance gets its 3 standard deviations."""
    low, high, nominal = TARGETS[what]
    if experiments < 2_000:
        slack = 3 * math.sqrt(nominal * (1 - nominal) / experiments)
        low = None if low is None else min(low, nominal - slack)
        high = None if high is None else max(high, nominal + slack)
    # A share is 0 to 1: a limit outside is none.
    return None if low is not None and low <= 0 else low, None if high is not None and high >= 1 else high


def target(what: str, experiments: int) -> str:
    """The limits in words."""
    low, high = limits(what, experiments)
    if low is None:
        return "any" if high is None else f"<= {high:.3g}"
    return f">= {low:.3g}" if high is None else f"{low:.3g} to {high:.3g}"


def _row(what: str, where: str, measured: float, experiments: int) -> dict:
    low, high = limits(what, experiments)
    ok = (low is None or measured >= low) and (high is None or measured <= high)
    return {
        "what": f"{what}, {where}",
        "target": target(what, experiments),
        "measured": measured,
        "ok": bool(ok),
        "experiments": experiments,
        "first": None,
    }
