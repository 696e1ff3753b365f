"""Scores of the simulator's oracles in similarity, on fresh worlds: how its two knobs were set.

    python tests/scripts/calibrate.py [PERSONAS [WORLDS]]

Prints one JSON line a world and a last one with the means. docs/simulator.md quotes it.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from harness.benchmarks.smarthome import Options, load
from harness.model.prompts import split_examples
from harness.scoring.similarity import Embedder, locate_scorer, similarity

FIRST_SEED = 1001  # fresh: neither the default world's seed nor one of the recipe's


def oracle_scores(options: Options, embedder: Embedder) -> dict[str, float]:
    """Mean similarity in points over the test replies, by oracle."""
    dataset = load(options)
    asked = split_examples(dataset, "test")
    references = [e.reference for e in asked]
    assert dataset.ceilings is not None
    return {
        c.name.removeprefix("oracle: "): 100
        * float(np.mean(similarity(embedder, [c.replies[e.prompt.id] for e in asked], references)))
        for c in dataset.ceilings()
    }


def main(personas: int, worlds: int, cache: Path | None = None, **knobs: float) -> dict[str, float]:
    """Means over `worlds` fresh worlds; prints as it goes."""
    embedder = Embedder(locate_scorer(), cache=cache)
    found = []
    for seed in range(FIRST_SEED, FIRST_SEED + worlds):
        scores = oracle_scores(replace(Options(personas=personas, world_seed=seed), **knobs), embedder)
        found.append(scores)
        print(json.dumps({"world_seed": seed, **{k: round(v, 2) for k, v in scores.items()}}), flush=True)
    means = {name: round(float(np.mean([f[name] for f in found])), 2) for name in found[0]}
    print(json.dumps({"personas": personas, "worlds": worlds, **knobs, **means}), flush=True)
    return means


if __name__ == "__main__":
    personas, worlds = [*map(int, sys.argv[1:3]), *(200, 5)[len(sys.argv[1:3]) :]]
    main(personas, worlds)
