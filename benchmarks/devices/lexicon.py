"""A device schema as a dictionary of phrases, and the splitting of a text into the tokens those are made of.

Phrases and what they may mean; which meaning holds in a sentence is decided in `settings`.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from .schema import Device, Parameter

Key = tuple[str, str]  # (device, parameter); the device is "" where a text does not tell it

_TOKEN = re.compile(
    r"(?P<clock>\d+(?::\d+)+)"  # 18:30 is no number
    r"|(?P<number>(?<![\w.])-?\d{1,9}(?:\.\d{1,9})?)(?P<celsius>[cf])?(?!\w)"
    r"|(?P<word>[^\W_]+(?:'[^\W_]+)?)"
    r"|(?P<mark>[^\w\s])"
)


@dataclass(frozen=True)
class Meaning:
    """All that one phrase may mean in the schema."""

    devices: frozenset[str] = frozenset()
    parameters: frozenset[Key] = frozenset()
    values: frozenset[tuple[str, str, str]] = frozenset()  # (device, parameter, value)


class Lexicon:
    """The schema turned into phrases of tokens, longest first."""

    def __init__(self, schema: tuple[Device, ...]) -> None:
        self.parameters: dict[Key, Parameter] = {(d.name, p.name): p for d in schema for p in d.parameters}
        self.states: frozenset[Key] = frozenset(k for k, p in self.parameters.items() if p.name in p.values)
        self.canonical = {phrase_of(value) for p in self.parameters.values() for value in p.values}
        devices: dict[tuple[str, ...], set[str]] = {}
        parameters: dict[tuple[str, ...], set[Key]] = {}
        values: dict[tuple[str, ...], set[tuple[str, str, str]]] = {}
        for device in schema:
            for name in (device.name, *device.aliases):
                devices.setdefault(phrase_of(name), set()).add(device.name)
            for p in device.parameters:
                for name in (p.name, *p.aliases):
                    parameters.setdefault(phrase_of(name), set()).add((device.name, p.name))
                for words, value in (*((value, value) for value in p.values), *p.synonyms):
                    values.setdefault(phrase_of(words), set()).add((device.name, p.name, value))
        self.by_first: dict[str, list[tuple[tuple[str, ...], Meaning]]] = {}
        for phrase in {*devices, *parameters, *values}:
            meaning = Meaning(
                frozenset(devices.get(phrase, ())),
                frozenset(parameters.get(phrase, ())),
                frozenset(values.get(phrase, ())),
            )
            self.by_first.setdefault(phrase[0], []).append((phrase, meaning))
        for entries in self.by_first.values():
            entries.sort(key=lambda entry: -len(entry[0]))

    def match(self, tokens: list[str], at: int) -> tuple[int, Meaning] | None:
        """The longest phrase of the schema starting at token `at`: its length in tokens, its meaning."""
        for phrase, meaning in self.by_first.get(tokens[at], ()):
            if tuple(tokens[at : at + len(phrase)]) == phrase:
                return len(phrase), meaning
        return None

    def admits(self, key: Key, number: float) -> bool:
        """Whether the parameter is a number and `number` lies in its range."""
        p = self.parameters[key]
        low = float("-inf") if p.low is None else p.low
        high = float("inf") if p.high is None else p.high
        return p.numeric and low <= number <= high


@functools.lru_cache(maxsize=16)
def lexicon_of(schema: tuple[Device, ...]) -> Lexicon:
    """The schema's lexicon, built once."""
    return Lexicon(schema)


def token_matches(text: str) -> list[re.Match[str]]:
    """Tokens of a text in lower case, as matches with the groups clock, number, celsius, word, mark."""
    # Hyphens and underscores join words ("fan_speed", "bass-boost"); they are no part of any.
    text = text.lower().replace("’", "'").replace("_", " ")
    return list(_TOKEN.finditer(re.sub(r"(?<=\w)-(?=\w)", " ", text)))


def phrase_of(text: str) -> tuple[str, ...]:
    """A text as its tokens."""
    return tuple(match.group() for match in token_matches(text))
