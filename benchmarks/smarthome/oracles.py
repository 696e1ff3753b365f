"""How well could one do? The best replies of observers who know nothing, the cluster, or the persona.

An oracle sees what the prompt shows, history included: it infers the tone and favourite phrases from earlier replies
and weighs the clusters by tone and by the settings stated so far (Bayes' rule with the world's own frequencies). Its
reply is the plug-in one: the most probable tone, phrases and value of each setting (MAP), not the reply with the
highest expected similarity, so a ceiling is a yardstick and not a strict bound.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

from ..smarthome.simulator import Conversation, Turn, render_reply
from ..smarthome.wording import MIXES, TONES
from ..smarthome.world import USUAL_PARAMETERS, Habit, Resident, World, values_of

Knows = Literal["blind", "cluster", "persona"]


def value_chance(world: World, k: int, time: str, device: str, parameter: str, value: str) -> float:
    """P(a member of cluster k has this value here), given that the device is in its routine."""
    own = world.knobs.own
    among = values_of(device, parameter)
    return own / len(among) + (1 - own) * (world.clusters[k].settings[time, device, parameter] == value)


class Observer:
    """What one oracle believes in the course of one conversation; feed it the turns in order."""

    def __init__(self, world: World, time: str, knows: Knows, resident: Resident) -> None:
        self.world, self.time, self.knows, self.resident = world, time, knows, resident
        shares = world.shares
        self.log_cluster = [
            (0.0 if knows == "cluster" and k == resident.cluster else -math.inf)
            if knows == "cluster"
            else (math.log(share) if share else -math.inf)
            for k, share in enumerate(shares)
        ]
        self.seen: list[Habit] = []
        self.seen_kinds: list[str] = []

    def cluster_weights(self) -> list[float]:
        top = max(self.log_cluster)
        weights = [math.exp(x - top) for x in self.log_cluster]
        return [w / sum(weights) for w in weights]

    def observe(self, turn: Turn) -> None:
        """Learn from a turn whose true reply is now history."""
        if not self.seen:
            for k, cluster in enumerate(self.world.clusters):
                self.log_cluster[k] += math.log(cluster.tones[turn.habit.tone])
        if turn.kind in ("usual", "partial"):
            stated = dict(turn.stated)
            for parameter, value in turn.settings:
                if parameter not in stated:
                    for k in range(len(self.world.clusters)):
                        chance = value_chance(self.world, k, self.time, turn.device, parameter, value)
                        self.log_cluster[k] += math.log(chance)
        self.seen.append(turn.habit)
        self.seen_kinds.append(turn.kind)

    def _habit(self) -> Habit:
        if self.knows == "persona":
            return self.resident.habit
        weights = self.cluster_weights()
        if self.seen:
            tone = self.seen[0].tone
        else:
            chance = [
                sum(w * c.tones[t] for w, c in zip(weights, self.world.clusters, strict=True))
                for t in range(len(TONES))
            ]
            tone = chance.index(max(chance))
        acts = [h for h, kind in zip(self.seen, self.seen_kinds, strict=True) if kind != "small_talk"]
        mix = MIXES[self.world.knobs.mix]  # phrases stand in order of popularity
        return Habit(
            tone=tone,
            opener=_most_common([h.opener for h in acts], mix.phrases[0]),
            frame=_most_common([h.frame for h in acts], mix.frames[0]),
            closer=_most_common([h.closer for h in acts if h.closes], mix.phrases[0]),
            thanks=mix.phrases[0],
            closes=acts[-1].closes if acts else False,
        )

    def reply(self, turn: Turn) -> str:
        """The best reply to a turn's request; looks at the request, never at the turn's own reply."""
        settings: list[tuple[str, str]] = []
        if turn.kind == "explicit":
            settings = list(turn.stated)
        elif turn.kind in ("usual", "partial"):
            stated = dict(turn.stated)
            weights = self.cluster_weights()
            routine: Mapping[str, str] = self.resident.routines[self.time].get(turn.device, {})
            for parameter in USUAL_PARAMETERS[turn.device]:
                if parameter in stated:
                    value = stated[parameter]
                elif self.knows == "persona" and parameter in routine:
                    value = routine[parameter]
                else:
                    votes: Counter[str] = Counter()
                    for w, cluster in zip(weights, self.world.clusters, strict=True):
                        votes[cluster.settings[self.time, turn.device, parameter]] += w  # type: ignore[assignment]
                    value = _top(votes)
                settings.append((parameter, value))
        return render_reply(turn.kind, turn.device, settings, self._habit())


def _top(votes: Mapping[str, float]) -> str:
    return max(sorted(votes), key=lambda value: votes[value])


def _most_common(seen: Sequence[int], default: int) -> int:
    return max(seen, key=lambda i: (seen.count(i), -seen.index(i))) if seen else default


def oracle_replies(
    world: World,
    conversations: Mapping[str, Sequence[Conversation]],
    knows: Knows,
    turns: Literal["all", "last"],
) -> dict[str, str]:
    """Prompt id -> reply for the test dialogues of every persona, ids as `harness.model.prompts` makes them.

    The observer believes that the dialogue belongs to the persona whose name is on it, which is what a method
    believes too; at signal 0 that belief is wrong for all of them alike.
    """
    residents = {r.id: r for r in world.residents}
    replies = {}
    for persona, owned in conversations.items():
        for number, conversation in enumerate(owned):
            if conversation.split != "test":
                continue
            observer = Observer(world, conversation.time, knows, residents[persona])
            for depth, turn in enumerate(conversation.turns):
                if turns == "all" or depth == len(conversation.turns) - 1:
                    replies[f"{persona}/{number:02d}#{depth}"] = observer.reply(turn)
                observer.observe(turn)
    return replies
