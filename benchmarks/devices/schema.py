"""What a device is: its name, its parameters with their values, and the words by which people name them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Parameter:
    """A device setting: a number in [low, high], or one of `values`.

    aliases   other words for the parameter, e.g. "tone" for a colour
    unit      a unit that by itself tells this parameter within the schema, e.g. "degrees"
    synonyms  (phrase, value): other ways to say a value, e.g. ("hdmi 1", "HDMI1")
    """

    name: str
    low: int | None = None
    high: int | None = None
    values: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    unit: str = ""
    synonyms: tuple[tuple[str, str], ...] = ()

    @property
    def numeric(self) -> bool:
        return not self.values


@dataclass(frozen=True, slots=True)
class Device:
    """A device with its parameters and the words by which people name it."""

    name: str
    parameters: tuple[Parameter, ...]
    aliases: tuple[str, ...] = ()
