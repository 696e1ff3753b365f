"""Clusters of personas from embeddings: K-means (scikit-learn), K fixed or by silhouette, and how good they are.

The study chooses which texts are embedded. Legend: G personas, E dimensions of a vector, K clusters.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from harness.contract import Clusters, Persona
from harness.errors import HarnessError

SMALLEST_K, LARGEST_K = 2, 8
RESTARTS: Any = 10  # scikit-learn's annotation knows only its default, "auto"


@dataclass(frozen=True)
class Clustering:
    """Which persona is in which cluster, and where the clusters lie.

    labels      persona id -> its cluster's number: any whole numbers where they are given, else 0..K-1
    centroids   [K, E]: means of the members' vectors, numbers ascending; None: the personas have no vectors
    silhouette  mean silhouette width (Rousseeuw 1987), nan for fewer than 2 clusters or without vectors
    tried       K -> silhouette, where K was chosen
    """

    labels: Mapping[str, int]
    centroids: NDArray[np.float64] | None
    silhouette: float
    tried: Mapping[int, float]

    @functools.cached_property
    def numbers(self) -> list[int]:
        """The clusters' numbers, ascending."""
        return sorted(set(self.labels.values()))

    def nearest(self, vector: NDArray[Any]) -> int | None:
        """The cluster whose centroid is nearest (Euclidean); None without centroids."""
        if self.centroids is None:
            return None
        place = int(np.linalg.norm(self.centroids - vector, axis=1).argmin())
        return self.numbers[place]

    def quality(self, given: Mapping[str, int]) -> dict[str, Any]:
        """For the record: sizes, silhouette, and the adjusted Rand index (Hubert and Arabie 1985) with given labels."""
        from sklearn.metrics import adjusted_rand_score

        found: dict[str, Any] = {
            "k": len(self.numbers),
            "sizes": [sum(label == k for label in self.labels.values()) for k in self.numbers],
            "silhouette": round(self.silhouette, 4) if np.isfinite(self.silhouette) else None,
        }
        if self.tried:
            found["silhouette_by_k"] = {str(k): round(value, 4) for k, value in self.tried.items()}
        both = [p for p in self.labels if p in given]
        if both:
            index = adjusted_rand_score([given[p] for p in both], [self.labels[p] for p in both])
            found["adjusted_rand_with_given"] = round(float(index), 4)
        return found


def k_means(ids: Sequence[str], vectors: NDArray[Any], k: int, seed: int) -> Clustering:
    """K-means on vectors [G, E]; k = 0 takes the K with the best silhouette from 2 to 8.

    Raises HarnessError if there are fewer personas, or fewer different ones, than clusters.
    """
    from sklearn.cluster import KMeans

    points = np.asarray(vectors, dtype=np.float64)
    different = len(np.unique(points, axis=0))
    least = k or SMALLEST_K
    if different < least:
        raise HarnessError(
            f"{least} clusters cannot be made of {len(ids)} personas with {different} different vectors; "
            "choose fewer clusters or another source (`by`)"
        )
    made: dict[int, tuple[float, NDArray[Any]]] = {}
    for count in [k] if k else range(SMALLEST_K, min(LARGEST_K, different - 1, len(ids) - 1) + 1) or [SMALLEST_K]:
        labels = KMeans(count, n_init=RESTARTS, random_state=seed).fit_predict(points)
        made[count] = (_silhouette(points, labels), labels)
    best = max(made, key=lambda count: (np.nan_to_num(made[count][0], nan=-1.0), -count))
    silhouette, labels = made[best]
    centroids = np.stack([points[labels == number].mean(axis=0) for number in range(best)])
    tried = {} if k else {count: value for count, (value, _) in made.items()}
    return Clustering(dict(zip(ids, map(int, labels), strict=True)), centroids, silhouette, tried)


def given_clusters(labels: Mapping[str, int], vectors: NDArray[Any] | None) -> Clustering:
    """The benchmark's own clusters with their centroids; vectors [G, E] in the order of `labels`."""
    numbers = {label: place for place, label in enumerate(sorted(set(labels.values())))}
    own = np.array([numbers[label] for label in labels.values()])
    if vectors is None:
        return Clustering(dict(labels), None, float("nan"), {})
    points = np.asarray(vectors, dtype=np.float64)
    centroids = np.stack([points[own == place].mean(axis=0) for place in numbers.values()])
    return Clustering(dict(labels), centroids, _silhouette(points, own), {})


def _silhouette(points: NDArray[Any], labels: NDArray[Any]) -> float:
    from sklearn.metrics import silhouette_score

    different = len(set(labels.tolist()))
    return float(silhouette_score(points, labels)) if 2 <= different < len(points) else float("nan")


def cluster_personas(
    spec: Clusters,
    personas: Sequence[Persona],
    newcomers: Sequence[Persona],
    vectors_of: Callable[[Literal["description", "behaviour"]], Mapping[str, NDArray[Any]]],
    seed: int,
) -> tuple[dict[str, int], dict[str, Any]]:
    """Cluster the personas as `spec` says; a newcomer goes to the nearest centroid of descriptions.

    vectors_of  "description" or "behaviour" -> persona id -> [E]
    Returns persona id -> cluster number (newcomers without a description are left out), and the quality of the
    clusters. Raises HarnessError if clusters are to be given and a persona has none, or if a persona has no text.
    """
    known = {p.id: p.cluster for p in personas if p.cluster is not None}
    if spec.by == "given":
        if without := [p.id for p in personas if p.cluster is None]:
            raise HarnessError(
                f"{len(without)} personas have no cluster, e.g. '{without[0]}'; make clusters with "
                "--set by=behaviour (or description), or use one adapter per persona"
            )
        made = given_clusters(known, None)
    else:
        found = vectors_of(spec.by)
        if missing := [p.id for p in personas if p.id not in found]:
            what = "description" if spec.by == "description" else "train replies"
            raise HarnessError(
                f"{len(missing)} personas have no {what}, e.g. '{missing[0]}'; cluster by something else"
            )
        ids = {p.id for p in personas}
        vectors = {p: vector for p, vector in found.items() if p in ids}
        made = k_means(list(vectors), np.stack(list(vectors.values())), spec.k, seed)
    labels = dict(made.labels)
    if newcomers:
        described = vectors_of("description")
        old = {p: label for p, label in labels.items() if p in described}
        at = given_clusters(old, np.stack([described[p] for p in old])) if old else None
        for persona in newcomers:
            nearest = at.nearest(described[persona.id]) if at and persona.id in described else None
            if nearest is not None:
                labels[persona.id] = nearest
    return labels, {"by": spec.by, **made.quality(known)}
