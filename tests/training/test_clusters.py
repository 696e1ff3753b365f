"""Clusters of personas: found, chosen by silhouette, measured, and joined by newcomers."""

from __future__ import annotations

import numpy as np
import pytest

from harness.errors import HarnessError
from harness.training.clusters import given_clusters, k_means


def blobs(count=3, each=8, spread=0.05):
    generator = np.random.default_rng(0)
    centres = np.eye(count) * 2
    points = np.concatenate([centre + spread * generator.normal(size=(each, count)) for centre in centres])
    ids = [f"p{i}" for i in range(len(points))]
    return ids, points, {name: i // each for i, name in enumerate(ids)}


def test_silhouette_finds_the_number_of_clusters():
    ids, points, truth = blobs()
    found = k_means(ids, points, 0, seed=0)
    assert set(found.tried) == set(range(2, 9))
    quality = found.quality(truth)
    assert quality["k"] == 3
    assert quality["sizes"] == [8, 8, 8]
    assert quality["adjusted_rand_with_given"] == 1.0
    assert quality["silhouette"] > 0.8


def test_a_fixed_number_is_kept_and_seeds_decide():
    ids, points, _ = blobs()
    assert k_means(ids, points, 5, seed=0).quality({})["k"] == 5
    assert k_means(ids, points, 5, seed=0).labels == k_means(ids, points, 5, seed=0).labels


def test_a_newcomer_goes_to_the_nearest_centroid():
    ids, points, truth = blobs()
    given = given_clusters({p: label * 10 for p, label in truth.items()}, points)
    assert [given.nearest(np.eye(3)[i] * 2) for i in range(3)] == [0, 10, 20]
    odd = given_clusters({p: {0: -1, 1: 7, 2: 10**12}[label] for p, label in truth.items()}, points)
    assert [odd.nearest(np.eye(3)[i] * 2) for i in range(3)] == [-1, 7, 10**12], "clusterings call the rest -1"
    assert given_clusters(truth, None).nearest(points[0]) is None
    found = k_means(ids, points, 3, seed=0)
    assert found.nearest(points[0]) == found.labels[ids[0]]


def test_too_few_different_people_is_an_error_that_helps():
    with pytest.raises(HarnessError, match="2 different vectors"):
        k_means(["a", "b", "c"], np.array([[0.0], [1.0], [1.0]]), 3, seed=0)
