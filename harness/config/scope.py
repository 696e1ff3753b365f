"""Who takes part in a run: the protocol's changes, the chosen personas, those held out, and whose data counts."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

from harness.contract import Dataset, Dialogue, Persona
from harness.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from harness.config.run_config import RunConfig


def with_config(dataset: Dataset, config: RunConfig, options: type) -> Dataset:
    """The data set with the run's protocol changes, and the first N personas where it cannot be made smaller."""
    if config.protocol:
        dataset = replace(dataset, protocol=replace(dataset.protocol, **config.protocol))
    can_shrink = any(f.name == "personas" for f in dataclasses.fields(options))
    if isinstance(config.personas, int) and not can_shrink and config.personas < len(dataset.personas):
        personas: tuple[Persona, ...] = dataset.personas[: config.personas]
        kept = {p.id for p in personas}
        dialogues: tuple[Dialogue, ...] = tuple(d for d in dataset.dialogues if d.persona in kept)
        dataset = replace(dataset, personas=personas, dialogues=dialogues)
    return dataset


def scope_of(dataset: Dataset, config: RunConfig) -> frozenset[str]:
    """Ids of the personas that are fitted and scored. Raises ConfigError for an unknown persona or cluster."""
    known = {p.id: p for p in dataset.personas}
    if config.persona:
        unknown = [p for p in config.persona if p not in known]
        if unknown:
            raise ConfigError(f"--persona: there is no persona '{unknown[0]}'; {did_you_mean(unknown[0], known)}")
        return frozenset(config.persona)
    if config.cluster is not None:
        clusters = {p.cluster for p in dataset.personas if p.cluster is not None}
        if config.cluster not in clusters:
            raise ConfigError(f"--cluster: there is no cluster {config.cluster}; known: {sorted(clusters)}")
        return frozenset(p.id for p in dataset.personas if p.cluster == config.cluster)
    return frozenset(known)


def fitted_for(dataset: Dataset, scope: frozenset[str], shares: str) -> list[Persona]:
    """Personas whose data a method may use: the chosen ones, their clusters', or everybody's, by what it shares."""
    if shares == "all":
        return list(dataset.personas)
    if shares == "cluster":
        clusters = {p.cluster for p in dataset.personas if p.id in scope}
        return [p for p in dataset.personas if p.id in scope or (p.cluster is not None and p.cluster in clusters)]
    return [p for p in dataset.personas if p.id in scope]


def held_out(dataset: Dataset) -> frozenset[str]:
    """Ids of the personas that no method may learn from (protocol.holdout_personas): always the same.

    They are picked by the hash of their ids, which has nothing to do with their order or cluster.
    Raises ConfigError if that leaves fewer than two personas.
    """
    count = dataset.protocol.holdout_personas
    if count and count > len(dataset.personas) - 2:
        raise ConfigError(f"holdout_personas = {count} leaves fewer than two of {len(dataset.personas)} personas")
    ids = sorted((p.id for p in dataset.personas), key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    return frozenset(ids[:count])
