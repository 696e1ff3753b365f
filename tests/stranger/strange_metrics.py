"""A metric from another distribution: which share of the reference's words the reply has."""

from __future__ import annotations

import math

from harness import Metric, MetricBatch, hookimpl


def shared_words(batch: MetricBatch) -> dict[str, list[float]]:
    values = []
    for reply, reference in batch.pairs():
        wanted = set(reference.lower().split())
        values.append(len(wanted & set(reply.lower().split())) / len(wanted) if wanted else math.nan)
    return {"shared_words": values}


@hookimpl
def metrics() -> list[Metric]:
    return [Metric("shared_words", "share of the reference's words that the reply has", shared_words)]
