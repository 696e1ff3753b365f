"""Dialogues of a world: what the residents ask, and the assistant's replies with everything that went into them.

A `Turn` keeps the latent choices (kind, device, settings, phrases) so that the oracles in `oracles` can reason about
them; `to_dialogue` renders the text that everybody else sees.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from harness.contract import SPLITS, Dialogue, Message, Split

from ..smarthome import wording
from ..smarthome.wording import MIXES, TONES, Mix
from ..smarthome.world import ALL_PARAMETERS, DEVICES, USUAL_PARAMETERS, Habit, Resident, World, stream, values_of

Kind = Literal["explicit", "usual", "partial", "small_talk"]
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
WEATHERS = ("sunny", "cloudy", "rainy", "snowy", "windy")
SUN = {"morning": ("rising", "up"), "afternoon": ("up",), "evening": ("setting", "down"), "night": ("down",)}


@dataclass(frozen=True, slots=True)
class Turn:
    """One request with its reply. `stated` are the settings that the user said, `settings` those of the reply."""

    kind: Kind
    user: str
    device: str
    stated: tuple[tuple[str, str], ...]
    settings: tuple[tuple[str, str], ...]
    habit: Habit  # the phrases really used

    @property
    def reply(self) -> str:
        return render_reply(self.kind, self.device, self.settings, self.habit)


@dataclass(frozen=True, slots=True)
class Conversation:
    """A dialogue with its latent choices; `speaker` is the resident it was made for."""

    id: str
    speaker: str
    split: Split
    time: str
    context: tuple[tuple[str, str], ...]
    turns: tuple[Turn, ...]


def render_reply(kind: Kind, device: str, settings: Sequence[tuple[str, str]], habit: Habit) -> str:
    """The assistant's words for these settings in this habit."""
    tone = TONES[habit.tone]
    if kind == "small_talk":
        return tone.thanks[habit.thanks]
    said = wording.say_settings(settings, wording.STYLE_OF_TONE[tone.name])
    parts = [tone.openers[habit.opener], wording.sentence(tone.frames[habit.frame], device, said)]
    if habit.closes:
        parts.append(tone.closers[habit.closer])
    return " ".join(parts)


def _used_habit(rng: random.Random, habit: Habit, spread: float, mix: Mix) -> Habit:
    def drawn(favourite: int, among: Sequence[int]) -> int:
        return rng.choice(among) if rng.random() < spread else favourite

    return Habit(
        tone=habit.tone,
        opener=drawn(habit.opener, mix.phrases),
        frame=drawn(habit.frame, mix.frames),
        closer=drawn(habit.closer, mix.phrases),
        thanks=drawn(habit.thanks, mix.phrases),
        closes=habit.closes,
    )


def _random_settings(rng: random.Random, device: str) -> tuple[tuple[str, str], ...]:
    count = rng.choice((1, 2, 2))
    names = sorted(rng.sample(ALL_PARAMETERS[device], count), key=ALL_PARAMETERS[device].index)
    return tuple((name, rng.choice(values_of(device, name))) for name in names)


def _turn(rng: random.Random, kind: Kind, device: str, resident: Resident, time: str, world: World) -> Turn:
    habit = _used_habit(rng, resident.habit, world.knobs.spread, MIXES[world.knobs.mix])
    if kind == "small_talk":
        return Turn(kind, rng.choice(wording.SMALL_TALK).format(time=time), "", (), (), habit)
    style = rng.randrange(3)
    if kind == "explicit":
        settings = stated = _random_settings(rng, device)
        user = rng.choice(wording.EXPLICIT)
    else:
        settings = tuple(resident.routines[time][device].items())
        stated = ()
        user = rng.choice(wording.USUAL)
        if kind == "partial":
            name = rng.choice([p for p in USUAL_PARAMETERS[device] if p != "armed"])
            stated = ((name, rng.choice(values_of(device, name))),)
            settings = tuple((p, stated[0][1] if p == name else v) for p, v in settings)
            user = rng.choice(wording.PARTIAL)
    said = wording.say_settings(stated, style) if stated else ""
    return Turn(kind, wording.sentence(user.replace("{time}", time), device, said), device, stated, settings, habit)


def converse(world: World, resident: Resident, number: int, split: Split) -> Conversation:
    """Dialogue `number` of a resident: 3 to 5 turns at one time of day."""
    rng = stream(world.seed, "dialogue", resident.id, number)
    time = rng.choice(list(resident.routines))
    temp = str(rng.randrange(0, 36))
    weather = rng.choice(WEATHERS)
    context = (
        ("time_of_day", time),
        ("day_of_week", rng.choice(DAYS)),
        ("sun_phase", rng.choice(SUN[time])),
        ("weather", weather),
        ("outdoor_temp", temp),
    )
    usual_left = rng.sample(list(resident.routines[time]), len(resident.routines[time]))
    free = rng.sample(DEVICES, len(DEVICES))
    turns: list[Turn] = []
    count = rng.choice((3, 4, 4, 5))
    for i in range(count):
        if i == count - 1 and rng.random() < 0.3:
            turns.append(_turn(rng, "small_talk", "", resident, time, world))
        elif usual_left and rng.random() < world.knobs.personal:
            device = usual_left.pop()
            kind: Kind = "partial" if rng.random() < 0.2 else "usual"
            turns.append(_turn(rng, kind, device, resident, time, world))
        else:
            turns.append(_turn(rng, "explicit", free[i % len(free)], resident, time, world))
    greeting = rng.choice(wording.GREETINGS).format(time=time, weather=weather, temp=temp)
    if greeting:
        first = turns[0]
        turns[0] = Turn(first.kind, f"{greeting} {first.user}", first.device, first.stated, first.settings, first.habit)
    return Conversation(f"{resident.id}/{number:02d}", resident.id, split, time, context, tuple(turns))


def simulate(world: World, counts: tuple[int, int, int] = (30, 10, 10)) -> dict[str, list[Conversation]]:
    """All conversations by persona id: `counts` of train, validation and test dialogues, in this order.

    With signal below 1 that share of each split's dialogues is dealt to random personas instead; the dialogue keeps
    its words, only the name on it changes.
    """
    splits: list[Split] = [split for split, count in zip(SPLITS, counts, strict=True) for _ in range(count)]
    made = [converse(world, r, i, split) for r in world.residents for i, split in enumerate(splits)]
    owners = [c.speaker for c in made]
    for split in ("train", "validation", "test"):
        rng = stream(world.seed, "deal", split)
        moved = [i for i, c in enumerate(made) if c.split == split and rng.random() >= world.knobs.signal]
        names = [owners[i] for i in moved]
        rng.shuffle(names)
        for i, name in zip(moved, names, strict=True):
            owners[i] = name
    by_persona: dict[str, list[Conversation]] = {r.id: [] for r in world.residents}
    for split in ("train", "validation", "test"):
        for conversation, owner in zip(made, owners, strict=True):
            if conversation.split == split:
                by_persona[owner].append(conversation)
    return by_persona


def to_dialogue(conversation: Conversation, persona: str, number: int) -> Dialogue:
    """The text of a conversation as a neutral record, under the name of the persona that it was dealt to."""
    messages = []
    for turn in conversation.turns:
        messages += [Message("user", turn.user), Message("assistant", turn.reply)]
    return Dialogue(f"{persona}/{number:02d}", persona, conversation.split, tuple(messages), conversation.context)
