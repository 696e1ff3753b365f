"""Who lives in the simulated city: five clusters of personas with routines and a way of being spoken to.

Signal sits on three levels. *What* is said: the preferred settings of a device at a time of day are everybody's,
unless the cluster has its own, unless the persona has its own. *How* it is said: a persona has a tone (likely its
cluster's) and within it favourite phrases. No dialogues here.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..smarthome.wording import MIXES, TONES, say_settings

TIMES = ("morning", "afternoon", "evening", "night")
DEVICES = ("tv", "ac", "lights", "speaker", "security")
CLUSTER_SIZES = (16, 52, 25, 35, 72)  # of the 200 personas in the study that this project follows
DEVICES_PER_ROUTINE = 3

_GRID = {
    "volume": tuple(str(v) for v in range(10, 75, 5)),
    "brightness": tuple(str(v) for v in range(10, 105, 10)),
    "temperature": tuple(str(v) for v in range(17, 28)),
    "fan_speed": ("1", "2", "3"),
    "alarm_volume": tuple(str(v) for v in range(30, 100, 10)),
}
_WORDS = {
    ("tv", "input_source"): ("HDMI1", "HDMI2", "YouTube", "Netflix"),
    ("ac", "mode"): ("cool", "heat", "auto"),
    ("lights", "color"): ("warm", "cool", "neutral"),
    ("lights", "mode"): ("static", "dynamic"),
    ("speaker", "equalizer"): ("balanced", "bass", "treble"),
    ("security", "armed"): ("true",),
}
USUAL_PARAMETERS: Mapping[str, tuple[str, ...]] = {
    "tv": ("volume", "input_source"),
    "ac": ("temperature", "fan_speed"),
    "lights": ("brightness", "color"),
    "speaker": ("volume", "equalizer"),
    "security": ("armed", "alarm_volume"),
}
ALL_PARAMETERS: Mapping[str, tuple[str, ...]] = {
    "tv": ("volume", "brightness", "input_source"),
    "ac": ("temperature", "mode", "fan_speed"),
    "lights": ("brightness", "color", "mode"),
    "speaker": ("volume", "equalizer"),
    "security": ("armed", "alarm_volume"),
}


def values_of(device: str, parameter: str) -> tuple[str, ...]:
    """All values that the simulator deals for a setting, as text."""
    return _WORDS.get((device, parameter)) or _GRID[parameter]


def stream(*key: object) -> random.Random:
    """A random stream that depends on the key alone, so that no part of the world shifts another."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return random.Random(int.from_bytes(digest[:16], "big"))


@dataclass(frozen=True, slots=True)
class Knobs:
    """The dials of a world; the defaults of `card().options` are the calibrated ones.

    personal   share of turns that need the persona ("the usual")
    spread     chance that a phrase is not the persona's favourite but any of its tone
    signal     share of dialogues that stay with their persona; at 0 all are dealt to random personas
    own, cluster_own  chance that a setting is the persona's own; else the cluster's own; else everybody's
    routines   times of day at which a persona is at home
    mix        which phrases, how popular (wording.MIXES)
    """

    personal: float
    spread: float
    signal: float = 1.0
    own: float = 0.35
    cluster_own: float = 0.5
    tone_of_cluster: float = 0.6
    mix: str = "house"
    routines: int = 4


Routine = Mapping[str, Mapping[str, str]]  # device -> parameter -> value


@dataclass(frozen=True, slots=True)
class Habit:
    """How a persona is answered: indices into its tone's phrases; `closes` says whether replies end with a closer."""

    tone: int
    opener: int
    frame: int
    closer: int
    thanks: int
    closes: bool


@dataclass(frozen=True, slots=True)
class Resident:
    """A persona with everything that is true of it."""

    id: str
    cluster: int
    routines: Mapping[str, Routine]  # time of day -> routine
    habit: Habit
    description: str


@dataclass(frozen=True, slots=True)
class Cluster:
    """What the members of a cluster share."""

    settings: Mapping[tuple[str, str, str], str]  # (time, device, parameter) -> value
    devices: Mapping[str, tuple[str, ...]]  # time -> devices of the routine
    tones: tuple[float, ...]  # chance of each tone


@dataclass(frozen=True, slots=True)
class World:
    """All clusters and residents of one seed."""

    seed: int
    knobs: Knobs
    clusters: tuple[Cluster, ...]
    residents: tuple[Resident, ...]

    @property
    def shares(self) -> tuple[float, ...]:
        """Share of the residents in each cluster."""
        return tuple(
            sum(r.cluster == k for r in self.residents) / len(self.residents) for k in range(len(self.clusters))
        )


def cluster_sizes(personas: int) -> tuple[int, ...]:
    """Sizes of the five clusters for a world of N personas: largest remainder, at least one each from N = 5 on."""
    exact = [personas * size / sum(CLUSTER_SIZES) for size in CLUSTER_SIZES]
    sizes = [int(x) for x in exact]
    by_remainder = sorted(range(len(sizes)), key=lambda k: (sizes[k] - exact[k], k))
    for k in by_remainder[: personas - sum(sizes)]:
        sizes[k] += 1
    if personas >= len(sizes):
        while 0 in sizes:
            sizes[sizes.index(max(sizes))] -= 1
            sizes[sizes.index(0)] += 1
    return tuple(sizes)


_TRADES = (
    ("retired teacher", "gardener", "librarian"),
    ("software engineer", "data analyst", "game designer"),
    ("nurse", "night porter", "paramedic"),
    ("painter", "musician", "photographer"),
    ("parent of three", "shop owner", "cook"),
)


def _cluster(seed: int, k: int, knobs: Knobs, everybody: Mapping[tuple[str, str, str], str]) -> Cluster:
    rng = stream(seed, "cluster", k)
    settings = {}
    for (time, device, parameter), value in everybody.items():
        own = rng.random() < knobs.cluster_own
        settings[time, device, parameter] = rng.choice(values_of(device, parameter)) if own else value
    devices = {time: tuple(rng.sample(DEVICES, DEVICES_PER_ROUTINE)) for time in TIMES}
    rest = (1 - knobs.tone_of_cluster) / (len(TONES) - 1)
    order = list(range(len(TONES)))
    stream(seed, "tones").shuffle(order)
    order = list(MIXES[knobs.mix].tones) or order
    tones = tuple(knobs.tone_of_cluster if t == order[k % len(TONES)] else rest for t in range(len(TONES)))
    return Cluster(settings, devices, tones)


def _resident(seed: int, i: int, k: int, cluster: Cluster, knobs: Knobs, describe: str) -> Resident:
    rng = stream(seed, "persona", i)
    routines: dict[str, Routine] = {}
    times = TIMES if knobs.routines >= len(TIMES) else rng.sample(TIMES, knobs.routines)
    for time in times:
        devices = list(cluster.devices[time])
        if rng.random() < knobs.own:
            devices[rng.randrange(len(devices))] = rng.choice([d for d in DEVICES if d not in devices])
        routines[time] = {
            device: {
                parameter: (
                    rng.choice(values_of(device, parameter))
                    if rng.random() < knobs.own
                    else cluster.settings[time, device, parameter]
                )
                for parameter in USUAL_PARAMETERS[device]
            }
            for device in devices
        }
    mix = MIXES[knobs.mix]
    habit = Habit(
        tone=rng.choices(range(len(TONES)), cluster.tones)[0],
        opener=rng.choices(mix.phrases, mix.popularity)[0],
        frame=rng.choices(mix.frames, mix.frame_popularity)[0],
        closer=rng.choices(mix.phrases, mix.popularity)[0],
        thanks=rng.choices(mix.phrases, mix.popularity)[0],
        closes=rng.random() < 0.5,
    )
    trade = rng.choice(_TRADES[k % len(_TRADES)])
    about = DESCRIPTIONS[describe](rng, trade, routines, habit)
    return Resident(f"persona_{i:03d}", k, routines, habit, about)


def describe_hints(rng: random.Random, trade: str, routines: Mapping[str, Routine], habit: Habit) -> str:
    """A short characterisation that hints at tone and one routine, as EdgeWisePersona's descriptions do."""
    time = rng.choice(list(routines))
    device = rng.choice(list(routines[time]))
    said = say_settings(list(routines[time][device].items()), 0)
    return f"A {trade} who {TONES[habit.tone].hint}. In the {time}: {device} {said}."


def describe_profile(rng: random.Random, trade: str, routines: Mapping[str, Routine], habit: Habit) -> str:
    """Everything a reply needs, in words: favourite phrases and all routines."""
    tone = TONES[habit.tone]
    close = tone.closers[habit.closer] if habit.closes else ""
    lines = [f"A {trade} who {tone.hint}. {tone.openers[habit.opener]} {close}".strip()]
    times = list(routines)
    rng.shuffle(times)
    for time in times:
        usual = ", ".join(f"{d} {say_settings(list(s.items()), 0)}" for d, s in routines[time].items())
        lines.append(f"In the {time}: {usual}.")
    return " ".join(lines)


def describe_facts(rng: random.Random, trade: str, routines: Mapping[str, Routine], habit: Habit) -> str:
    """As `describe_profile`, fact by fact: each device is named with its time of day right before it."""
    tone = TONES[habit.tone]
    close = tone.closers[habit.closer] if habit.closes else ""
    facts = [(time, device, settings) for time, routine in routines.items() for device, settings in routine.items()]
    rng.shuffle(facts)
    usual = ", ".join(f"{time} {device} {say_settings(list(settings.items()), 0)}" for time, device, settings in facts)
    return f"A {trade} who {tone.hint}. {tone.openers[habit.opener]} {close} Usual: {usual}.".replace("  ", " ")


DESCRIPTIONS = {"hints": describe_hints, "profile": describe_profile, "facts": describe_facts}


def build_world(personas: int, seed: int, knobs: Knobs, describe: str = "hints", sizes: Sequence[int] = ()) -> World:
    """A world of `personas` residents in five clusters.

    A persona depends on (seed, its number, its cluster) alone. `sizes` overrides the clusters' sizes.
    """
    rng = stream(seed, "everybody")
    everybody = {
        (time, device, parameter): rng.choice(values_of(device, parameter))
        for time in TIMES
        for device in DEVICES
        for parameter in USUAL_PARAMETERS[device]
    }
    counts = tuple(sizes) or cluster_sizes(personas)
    clusters = tuple(_cluster(seed, k, knobs, everybody) for k in range(len(counts)))
    labels = [k for k, count in enumerate(counts) for _ in range(count)]
    stream(seed, "labels", personas).shuffle(labels)
    residents = tuple(_resident(seed, i, k, clusters[k], knobs, describe) for i, k in enumerate(labels))
    return World(seed, knobs, clusters, residents)
