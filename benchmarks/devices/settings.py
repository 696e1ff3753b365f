"""Read a reply into typed device settings: which devices it names and which parameters it sets to what.

A parser for short assistant replies, driven by the schema alone (no device is known here). No counting.
Whole-word mentions of devices, parameters and values; a clause ends at a comma, "and", "with" ...; a value
belongs to the parameter named in its clause, before or after it, else to the only one that admits it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from . import words
from .lexicon import Key, Lexicon, Meaning, lexicon_of, token_matches
from .schema import Device

Value = float | str

_SENTENCE = re.compile(r"(?<=[.!?])[\s\"')]+|\n+")


@dataclass(frozen=True)
class Settings:
    """What a reply says: devices it names, settings it makes (numbers as float, words as in the schema)."""

    devices: frozenset[str] = frozenset()
    values: Mapping[Key, Value] = field(default_factory=dict)


@dataclass
class _Item:
    """A mention: a phrase of the schema, or a number. Positions are tokens, `end` exclusive."""

    start: int
    end: int
    clause: int
    meaning: Meaning | None = None
    number: float | None = None
    degrees: bool = False
    used: bool = False

    def keys(self) -> frozenset[Key]:
        return self.meaning.parameters if self.meaning else frozenset()

    def names(self) -> frozenset[str]:
        return self.meaning.devices if self.meaning else frozenset()


def parse(text: str, schema: tuple[Device, ...]) -> Settings:
    """Settings that a reply states, read against the schema.

    A sentence that asks ("What brightness would you like?") names devices and sets nothing. A later statement
    about the same parameter replaces an earlier one. A value outside its parameter's range is kept where the
    parameter is named: the reply did say it.
    """
    lexicon = lexicon_of(tuple(schema))
    named: set[str] = set()
    values: dict[Key, Value] = {}
    context: list[str] = []  # devices of earlier sentences, the latest last
    for sentence in _SENTENCE.split(text.strip()):
        if not sentence.strip():
            continue
        reader = _Sentence(sentence, lexicon, context)
        if not sentence.rstrip(" \"')").endswith("?"):
            values.update(reader.settings())
        for item in reader.items:
            # "a warm light": the noun is the parameter here, and names its device all the same
            for name in sorted(item.names()):
                named.add(name)
                context.append(name)
    named.update(device for device, _ in values if device)
    return Settings(frozenset(named), values)


class _Sentence:
    def __init__(self, text: str, lexicon: Lexicon, context: list[str]) -> None:
        self.lexicon = lexicon
        self.context = context
        found = token_matches(text)
        self.tokens = [match.group() for match in found]
        self.items: list[_Item] = []
        clause, at = 0, 0
        while at < len(found):
            hit = lexicon.match(self.tokens, at)
            if hit is not None:
                self.items.append(_Item(at, at + hit[0], clause, meaning=hit[1]))
                at += hit[0]
            elif found[at].group("number") is not None:
                item = self._number(found[at], at, clause)
                if item is not None:
                    self.items.append(item)
                at = item.end if item is not None else at + 1
            else:
                if self.tokens[at] in words.CLAUSE_ENDS:
                    clause += 1
                at += 1

    def _number(self, match: re.Match[str], at: int, clause: int) -> _Item | None:
        end = at + 1
        degrees = match.group("celsius") is not None
        while end < len(self.tokens) and self.tokens[end] in words.DEGREES | words.PERCENT:
            degrees = degrees or self.tokens[end] in words.DEGREES
            end += 1
        if degrees and end < len(self.tokens) and self.tokens[end] in ("c", "f"):
            end += 1
        if end < len(self.tokens) and self.tokens[end] in words.OTHER_UNITS:
            return None
        before = self.tokens[at - 1] if at else ""
        if before in words.NOT_THE_GOAL and not (before == "of" and self._parameter_just_before(at - 1)):
            return None
        return _Item(at, end, clause, number=float(match.group("number")), degrees=degrees)

    def _parameter_just_before(self, at: int) -> bool:
        return bool(self.items) and self.items[-1].end == at and bool(self.items[-1].keys())

    def settings(self) -> dict[Key, Value]:
        """The sentence's settings in reading order."""
        result: dict[Key, Value] = {}
        for i, item in enumerate(self.items):
            if item.number is not None:
                result.update(self._set_number(i, item))
            elif item.meaning is not None and item.meaning.values and not item.used:
                result.update(self._set_value(i, item))
        return result

    def _set_number(self, i: int, item: _Item) -> dict[Key, Value]:
        number = item.number
        assert number is not None
        allowed = frozenset(k for k, p in self.lexicon.parameters.items() if p.numeric)
        if item.degrees:
            units = frozenset(k for k in allowed if self.lexicon.parameters[k].unit == "degrees")
            allowed = units or allowed
        owner = self._before(i, item, allowed) or self._after(i, item, allowed, number)
        if owner is not None:
            owner.used = True
            keys = self._resolve(owner, item, frozenset(owner.keys() & allowed))
            return dict.fromkeys(keys, number) | self._shared(owner, item, allowed, number)
        if item.degrees and len(allowed) == 1:
            return {next(iter(allowed)): number}
        return self._bare_number(item, allowed, number)

    def _bare_number(self, item: _Item, allowed: frozenset[Key], number: float) -> dict[Key, Value]:
        """Reads "AC to 22": the only number of that device which may be 22."""
        before = self.tokens[item.start - 1] if item.start else ""
        after = self.tokens[item.end] if item.end < len(self.tokens) else "."
        closed = after in words.VALUE_CLOSERS | words.CLAUSE_ENDS or not after[0].isalnum()
        closed = closed or any(other.start == item.end for other in self.items)
        beside = any(other.end == item.start and other.names() for other in self.items)
        opened = beside or before in ("to", "at", ",", "and", "with", ":", "=", "now", "set")
        if not opened or not closed:
            return {}
        candidates = frozenset(device for device, _ in allowed)
        device = self._owner((item,), candidates) or self._device_near(item, candidates, this_sentence=True)
        fits = [key for key in allowed if key[0] == device and self.lexicon.admits(key, number)]
        return {fits[0]: number} if len(fits) == 1 else {}

    def _shared(self, owner: _Item, item: _Item, allowed: frozenset[Key], number: float) -> dict[Key, Value]:
        """Both halves of "volume and brightness to 50": the first half ends right before its "and"."""
        for other in self.items:
            pair = other.end == owner.start - 1 and self.tokens[other.end] in ("and", "&")
            if pair and not other.used and owner.end <= item.start and other.keys() & allowed:
                other.used = True
                keys = self._resolve(other, item, frozenset(other.keys() & allowed))
                return {key: number for key in keys if not key[0] or self.lexicon.admits(key, number)}
        return {}

    def _set_value(self, i: int, item: _Item) -> dict[Key, Value]:
        assert item.meaning is not None
        meanings = {(device, name): value for device, name, value in sorted(item.meaning.values)}
        states = {key: value for key, value in meanings.items() if key in self.lexicon.states}
        if states:
            return self._set_state(item, states)
        allowed = frozenset(meanings)
        owner = self._before(i, item, allowed, strict=True) or self._after(i, item, allowed, None)
        if owner is not None:
            owner.used = True
            keys = self._resolve(owner, item, frozenset(owner.keys() & allowed))
            words = set(meanings.values())
            return {key: meanings.get(key, min(words)) for key in keys}
        return self._bare_value(i, item, meanings)

    def _set_state(self, item: _Item, states: dict[Key, str]) -> dict[Key, Value]:
        """A state of the device ("armed") stands anywhere, other forms of the word only with the device."""
        if words.NEGATIONS.intersection(self.tokens[max(0, item.start - 3) : item.start]):
            return {}
        phrase = tuple(self.tokens[item.start : item.end])
        here = frozenset(name for other in self.items for name in other.names())
        return {k: v for k, v in states.items() if phrase in self.lexicon.canonical or k[0] in here}

    def _bare_value(self, i: int, item: _Item, meanings: dict[Key, str]) -> dict[Key, Value]:
        """Reads "AC to cool", "lights to 50, warm": a word on its own, if it stands where a value stands."""
        before = self.tokens[item.start - 1] if item.start else ""
        if before in ("a", "an", "the") and item.start > 1:
            before = self.tokens[item.start - 2]
        after = self.tokens[item.end] if item.end < len(self.tokens) else "."
        beside = i > 0 and self.items[i - 1].end == item.start and bool(self.items[i - 1].names())
        listed = before in (",", "and", "with") and after in (",", "and", ".", "with", ";", "!")
        closed = after in words.VALUE_CLOSERS | words.CLAUSE_ENDS or not after[0].isalnum()
        if not closed or not (before in words.VALUE_OPENERS or beside or listed):
            return {}
        here = listed or before not in words.SWITCHED_TO
        device = self._device_near(item, frozenset(device for device, _ in meanings), this_sentence=here)
        fits = {key: value for key, value in meanings.items() if key[0] == device}
        if not fits and not here and len(meanings) == 1 and not next(iter(meanings.values())).islower():
            fits = meanings  # a proper name ("Netflix") that one parameter of the whole schema knows
        return dict(fits) if len(fits) == 1 else {}

    def _before(self, i: int, item: _Item, allowed: frozenset[Key], *, strict: bool = False) -> _Item | None:
        """The nearest parameter before the value in its clause that is not taken yet."""
        for other in reversed(self.items[:i]):
            if other.clause != item.clause or other.number is not None:
                return None
            if other.keys() & allowed:
                gap = self.tokens[other.end : item.start]
                plain = [token for token in gap if token not in words.LINKS]
                far = len(plain) > 3 if not strict else bool(plain) and not self._only_owner(other, item)
                return None if other.used or far else other
            if not other.names():
                return None
        return None

    def _only_owner(self, parameter: _Item, item: _Item) -> bool:
        """Reads "color of the lights to warm": between the two stand only the device and small words."""
        inside = [x for x in self.items if parameter.end <= x.start < item.start]
        covered = {at for x in inside if x.names() for at in range(x.start, x.end)}
        free = [self.tokens[at] for at in range(parameter.end, item.start) if at not in covered]
        return bool(inside) and all(token in words.LINKS | words.OWNERS | {"your", "my"} for token in free)

    def _after(self, i: int, item: _Item, allowed: frozenset[Key], number: float | None) -> _Item | None:
        """The parameter right after the value: "cool mode", "75% brightness", "50 for the volume"."""
        for other in self.items[i + 1 : i + 2]:
            keys = other.keys() & allowed
            if number is not None:
                keys = frozenset(key for key in keys if self.lexicon.admits(key, number))
            gap = self.tokens[item.end : other.start]
            small = all(token in ("for", "the", "of", "on", "in", "white", "colored") for token in gap) and len(gap) < 3
            if keys and not other.used and other.clause == item.clause and small:
                return other
        return None

    def _resolve(self, parameter: _Item, value: _Item, keys: frozenset[Key]) -> list[Key]:
        """The parameter with its device: named in the sentence, else the only one, else known from before."""
        if len(keys) <= 1:
            return list(keys)
        candidates = frozenset(device for device, _ in keys)
        last = max(parameter, value, key=lambda item: item.start)
        device = self._owner((parameter, last), candidates) or self._device_near(parameter, candidates)
        names = {name for _, name in keys}
        if not device:
            return [("", min(names))]
        return [key for key in sorted(keys) if key[0] in self._group(device, parameter, candidates)]

    def _owner(self, anchors: tuple[_Item, ...], candidates: frozenset[str]) -> str:
        """The device in "brightness of the TV to 40" or "a brightness of 40 on the TV"; else ""."""
        for other in self.items:
            for anchor in anchors:
                gap = self.tokens[anchor.end : other.start] if other.start > anchor.start else []
                if gap and gap[0] in words.OWNERS and len(gap) <= 3 and other.names() & candidates:
                    return min(other.names() & candidates)
        return ""

    def _device_near(self, item: _Item, candidates: frozenset[str], *, this_sentence: bool = False) -> str:
        devices = [other for other in self.items if other.names() & candidates and other is not item]
        before = [other for other in devices if other.start < item.start]
        after = [other for other in devices if other.start >= item.end]
        same = [other for other in after if other.clause == item.clause]
        for nearest in (before[-1:], same[:1], after[:1]):
            if nearest:
                return min(nearest[0].names() & candidates)
        known = [] if this_sentence else [name for name in self.context if name in candidates]
        return known[-1] if known else ""

    def _group(self, device: str, parameter: _Item, candidates: frozenset[str]) -> set[str]:
        """Reads "the TV and speaker volume": devices joined by a bare "and" share what follows."""
        group = {device}
        row = [item for item in self.items if item.names() and item.start < parameter.start]
        for left, right in zip(reversed(row[:-1]), reversed(row), strict=False):
            if self.tokens[left.end : right.start] not in (["and"], ["&"]) or device not in right.names() | group:
                break
            group |= left.names() & candidates
        return group


def same_settings(a: str, b: str, schema: tuple[Device, ...]) -> bool:
    """Whether two replies make exactly the same settings; two that make none are the same in this sense."""
    return dict(parse(a, schema).values) == dict(parse(b, schema).values)
