"""The smart-home devices of EdgeWisePersona as a typed schema, with the words by which people name them.

The parser that reads replies against them is in `settings`.
"""

from __future__ import annotations

from .schema import Device, Parameter

_LINKS = ("", "to", "is", ":", "=")  # between a yes/no parameter and its value
_VOLUME = Parameter("volume", 0, 100, aliases=("sound level", "volume level"))
_BRIGHTNESS = Parameter("brightness", 0, 100, aliases=("brightness level", "light level"))

DEVICES: tuple[Device, ...] = (
    Device(
        "tv",
        (
            _VOLUME,
            _BRIGHTNESS,
            Parameter(
                "input_source",
                values=("HDMI1", "HDMI2", "AV", "Netflix", "YouTube"),
                aliases=("input source", "input", "source"),
                synonyms=(("hdmi 1", "HDMI1"), ("hdmi 2", "HDMI2"), ("you tube", "YouTube")),
            ),
        ),
        aliases=("tv", "television", "telly", "tv set"),
    ),
    Device(
        "ac",
        (
            Parameter("temperature", 16, 30, aliases=("temp", "thermostat"), unit="degrees"),
            Parameter(
                "mode",
                values=("auto", "cool", "heat"),
                synonyms=(("cooling", "cool"), ("heating", "heat"), ("automatic", "auto")),
            ),
            Parameter("fan_speed", 0, 3, aliases=("fan speed", "fan", "fan level")),
        ),
        aliases=(
            "ac",
            "a/c",
            "a.c.",
            "air conditioner",
            "air conditioning",
            "air con",
            "aircon",
            "climate control",
        ),
    ),
    Device(
        "lights",
        (
            _BRIGHTNESS,
            Parameter(
                "color",
                values=("warm", "cool", "neutral"),
                aliases=(
                    "colour",
                    "tone",
                    "hue",
                    "glow",
                    "color tone",
                    "color temperature",
                    "light",
                    "white",
                    "shade",
                ),
            ),
            Parameter("mode", values=("static", "dynamic")),
        ),
        aliases=("lights", "light", "lighting", "lamp", "lamps"),
    ),
    Device(
        "speaker",
        (
            _VOLUME,
            Parameter(
                "equalizer",
                values=("balanced", "bass boost", "treble boost"),
                aliases=("equaliser", "eq", "sound profile"),
                synonyms=(("bass", "bass boost"), ("treble", "treble boost"), ("boosted bass", "bass boost")),
            ),
        ),
        aliases=("speaker", "speakers", "sound system"),
    ),
    Device(
        "security",
        (
            Parameter(
                "armed",
                values=("armed", "disarmed"),
                synonyms=(
                    *((phrase, "armed") for phrase in ("arm", "arming", "rearmed")),
                    *((phrase, "disarmed") for phrase in ("disarm", "disarming", "unarmed", "not armed")),
                    *((f"armed {link} true", "armed") for link in _LINKS),
                    *((f"armed {link} false", "disarmed") for link in _LINKS),
                ),
            ),
            Parameter("alarm_volume", 0, 100, aliases=("alarm volume", "volume of the alarm", "alarm sound")),
        ),
        aliases=("security", "security system", "alarm", "alarm system"),
    ),
)
"""tv, ac, lights, speaker, security. `armed: true` in a routine is the value "armed", false "disarmed"."""
