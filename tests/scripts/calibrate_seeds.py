"""Which degrees of freedom for training seeds? False positives of both formulas on the same simulated experiments.

    python tests/scripts/calibrate_seeds.py [experiments] [personas,seed_sd,seeds ...]

Not a test: it takes minutes. What it printed is in docs/statistics.md, and decided `statistics.seeds.with_seeds`.
"""

from __future__ import annotations

import sys

import numpy as np
from scipy import stats

from harness.statistics import calibration as c
from harness.statistics.estimands import differences, mean_and_se
from harness.statistics.flips import sign_matrix, studentised
from harness.statistics.seeds import seed_variance

FLIPS = 999
GRID = ("200,.006,3", "200,.006,2", "200,.006,5", "200,.002,3", "200,.015,3", "200,0,3", "24,.006,3", "10,.006,3")


def trained(rng: np.random.Generator, sizes: np.ndarray, seeds: int, seed_sd: float) -> np.ndarray:
    """Summed scores [S, G] of one method without effect, as in `calibration.seeds_as_factor`."""
    n, squares = sizes.sum(-1).astype(float), (sizes**2).sum(-1)
    kept = n * c.INTERACTION_SD * rng.standard_normal(n.shape)

    def once() -> np.ndarray:
        noise = np.sqrt(squares) * c.DIALOGUE_SD * rng.standard_normal(n.shape)
        noise += np.sqrt(n) * c.REPLY_SD * rng.standard_normal(n.shape)
        return kept + noise + n * seed_sd * rng.standard_normal()

    return np.stack([once() for _ in range(seeds)])


def main(experiments: int, personas: int, seed_sd: float, seeds: int) -> dict[str, float]:
    """Share of experiments rejected at .05 by formula, and how often the excess was 0."""
    rng = c.rng_for(f"seeds df G={personas} S={seeds} sd={seed_sd}")
    signs = sign_matrix(personas, FLIPS, 1)
    rejected = {"difference of mean squares as one": 0, "sum of mean squares": 0}
    none = 0
    for _ in range(experiments):
        sizes = c.dialogue_sizes(rng, 1, personas)[0]
        n = sizes.sum(-1).astype(float)
        method, baseline = (trained(rng, sizes, seeds, seed_sd) for _ in range(2))
        d = differences(method, baseline, n)
        delta, se = (float(x) for x in mean_and_se(d, n))
        pooled = seed_variance([baseline, method], n, "micro")
        statistic = studentised((n * (d - delta))[:, None], n, signs)[:, 0]
        critical = np.sort(statistic)[int(np.ceil(0.95 * (len(statistic) + 1))) - 1]
        k = 2 / seeds
        none += pooled.excess == 0
        variance = se**2 + pooled.excess * k
        own = se**4 / (personas - 1)
        sums = (pooled.vbar * k) ** 2 / pooled.nu + (pooled.mbar * k) ** 2 / (pooled.nu * (personas - 1))
        for name, extra in zip(rejected, ((pooled.excess * k) ** 2 / pooled.nu, sums), strict=True):
            df = max(variance**2 / (own + (extra if pooled.excess else 0.0)), min(pooled.nu, personas - 1))
            scale = stats.t.ppf(0.975, df) / stats.t.ppf(0.975, personas - 1)
            rejected[name] += int(abs(delta) > critical * scale * np.sqrt(variance))
    return {name: count / experiments for name, count in rejected.items()} | {"excess 0": none / experiments}


if __name__ == "__main__":
    experiments = int(sys.argv[1]) if len(sys.argv) > 1 else 2_000
    for cell in sys.argv[2:] or GRID:
        personas, seed_sd, seeds = cell.split(",")
        print(cell, main(experiments, int(personas), float(seed_sd), int(seeds)), flush=True)
