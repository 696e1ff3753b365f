"""PersonaScores: what a comparison needs of one method, and nothing else of its run.

`harness.compare` decides whether two runs may be compared. Here unlike inputs raise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.errors import HarnessError


@dataclass(frozen=True, slots=True, eq=False)
class PersonaScores:
    """Summed scores of one method, per training seed and persona.

    personas  [G] ids, unique
    seeds     [S] training seeds
    sums      [S, G] summed scores (0-1 scale for metrics in points); [G] is taken as one seed
    n         [G] scored replies per persona, the same for every seed; [S, G] with equal rows is taken too
    Raises    HarnessError for wrong shapes, repeated ids, numbers that are not finite, or n < 1.
    """

    personas: tuple[str, ...]
    seeds: tuple[int, ...]
    sums: np.ndarray
    n: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "personas", tuple(self.personas))
        object.__setattr__(self, "seeds", tuple(self.seeds))
        sums = np.atleast_2d(np.asarray(self.sums, dtype=float))
        n = np.atleast_2d(np.asarray(self.n, dtype=float))
        shape = (len(self.seeds), len(self.personas))
        if 0 in shape:
            raise HarnessError("persona scores need at least one seed and one persona, got none")
        if sums.shape != shape or n.shape[-1] != shape[1] or n.shape[0] not in (1, shape[0]):
            raise HarnessError(
                f"persona scores need shape (seeds, personas) {shape}, got sums {sums.shape}, n {n.shape}"
            )
        if len(set(self.personas)) != shape[1]:
            raise HarnessError("persona scores name a persona twice: sum its replies before comparing")
        if (n != n[0]).any():
            raise HarnessError("the seeds of one method were scored on different numbers of replies per persona")
        if not np.isfinite(sums).all() or not (n >= 1).all():
            raise HarnessError("persona scores must be finite, with at least one scored reply for every persona")
        object.__setattr__(self, "sums", sums)
        object.__setattr__(self, "n", n[0])

    def restricted_to(self, personas: Sequence[str]) -> PersonaScores:
        """The same scores for these personas only, in this order (for methods that were run on a subset).

        Raises HarnessError naming a persona that is not there.
        """
        if tuple(personas) == self.personas:
            return self
        place = {persona: i for i, persona in enumerate(self.personas)}
        missing = [persona for persona in personas if persona not in place]
        if missing:
            raise HarnessError(f"{len(missing)} personas have no scores, e.g. {missing[0]!r}: compare shared ones only")
        columns = [place[persona] for persona in personas]
        return PersonaScores(tuple(personas), self.seeds, self.sums[:, columns], self.n[columns])


def aligned(name: str, scores: PersonaScores, baseline: PersonaScores) -> PersonaScores:
    """`scores` in the baseline's order of personas.

    Raises HarnessError if the personas or their numbers of replies differ: such runs are not comparable.
    """
    if scores.personas != baseline.personas and (extra := set(scores.personas) ^ set(baseline.personas)):
        raise HarnessError(
            f"{name} and the baseline were scored on different personas ({len(scores.personas)} and "
            f"{len(baseline.personas)}, e.g. {min(extra)!r} on one side only): compare shared personas"
        )
    scores = scores.restricted_to(baseline.personas)
    unlike = np.flatnonzero(scores.n != baseline.n)
    if unlike.size:
        p = int(unlike[0])
        raise HarnessError(
            f"{name} and the baseline were scored on different replies: persona {baseline.personas[p]!r} has "
            f"{scores.n[p]:g} and {baseline.n[p]:g}, and {unlike.size} personas differ; score both alike"
        )
    return scores
