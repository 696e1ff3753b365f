"""The parser of replies: known parser bugs of the field are cases here, beside wordings of real replies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.benchmarks.devices import DEVICES, Device, Parameter
from harness.benchmarks.devices.settings import parse, same_settings

SAMPLE = Path(__file__).parents[3] / "shared" / "data" / "edgewise_sample.jsonl"


def read(text: str) -> dict[str, float | str]:
    return {f"{device}.{name}": value for (device, name), value in parse(text, DEVICES).values.items()}


@pytest.mark.parametrize(
    ("reply", "settings"),
    [
        (
            "Setting the AC to heat mode at 26 degrees with fan speed 3.",
            {"ac.mode": "heat", "ac.temperature": 26, "ac.fan_speed": 3},
        ),
        (
            "Adjusting the lights to 100 brightness with a cool color in static mode.",
            {"lights.brightness": 100, "lights.color": "cool", "lights.mode": "static"},
        ),
        (
            "Got it. TV volume at 40, brightness at 70, input source to Netflix. "
            "Speaker volume at 60 with bass boost equalizer. Anything else?",
            {
                "tv.volume": 40,
                "tv.brightness": 70,
                "tv.input_source": "Netflix",
                "speaker.volume": 60,
                "speaker.equalizer": "bass boost",
            },
        ),
        (
            "TV settings updated: volume at 40, brightness at 60, and input source set to HDMI 2.",
            {"tv.volume": 40, "tv.brightness": 60, "tv.input_source": "HDMI2"},
        ),
        (
            "The lights have been set to a warm color with a brightness of 60, in static mode, as usual.",
            {"lights.color": "warm", "lights.brightness": 60, "lights.mode": "static"},
        ),
        (
            "Setting the lights to brightness 80, color neutral, and mode dynamic.",
            {"lights.brightness": 80, "lights.color": "neutral", "lights.mode": "dynamic"},
        ),
        (
            "I've set the TV volume to 60, brightness to 60, and the speaker volume to 70 with a treble "
            "boost equalizer.",
            {
                "tv.volume": 60,
                "tv.brightness": 60,
                "speaker.volume": 70,
                "speaker.equalizer": "treble boost",
            },
        ),
        (
            "Your usual: AC 21 degrees, auto, fan speed 0; lights 45, warm, static.",
            {
                "ac.temperature": 21,
                "ac.mode": "auto",
                "ac.fan_speed": 0,
                "lights.brightness": 45,
                "lights.color": "warm",
                "lights.mode": "static",
            },
        ),
        (
            "I've armed the security system and set the alarm volume to 60.",
            {"security.armed": "armed", "security.alarm_volume": 60},
        ),
        (
            "Setting the brightness of the lights to 40 and the brightness of the TV to 20.",
            {"lights.brightness": 40, "tv.brightness": 20},
        ),
        (
            "Setting the volume to 30 and brightness to 50 on the TV.",
            {"tv.volume": 30, "tv.brightness": 50},
        ),
        ("Setting volume and brightness of the TV to 50.", {"tv.volume": 50, "tv.brightness": 50}),
        ("Setting the TV and speaker volume to 30.", {"tv.volume": 30, "speaker.volume": 30}),
        ("The AC is now set to cool at 20°C.", {"ac.mode": "cool", "ac.temperature": 20}),
        ("AC to 22.", {"ac.temperature": 22}),
        ("fan_speed: 2, temperature: 19", {"ac.fan_speed": 2, "ac.temperature": 19}),
        ("LIGHTS TO 50% BRIGHTNESS!!!", {"lights.brightness": 50}),
        ("TV volume from 30 to 50.", {"tv.volume": 50}),
        ("Switching to YouTube.", {"tv.input_source": "YouTube"}),
        ("Temperature 22.5 degrees.", {"ac.temperature": 22.5}),
        ("The AC is at 24 degrees. Actually, the AC is at 25 degrees.", {"ac.temperature": 25}),
    ],
)
def test_reads_settings(reply, settings):
    assert read(reply) == settings


def test_warm_does_not_arm_the_alarm():
    assert read("The security lights are set to a warm tone.") == {"lights.color": "warm"}


def test_charming_does_not_arm_the_alarm():
    assert read("What a charming alarm, its alarm volume is 40.") == {"security.alarm_volume": 40}


def test_w_arm_with_a_hyphen_or_a_capital_does_not_arm_either():
    assert read("Warm and Charming: the farm alarm keeps harm away from your army.") == {}


def test_an_arm_without_the_device_is_a_limb():
    assert read("Rest your arm.") == {}
    assert read("I'll arm the security system.") == {"security.armed": "armed"}


@pytest.mark.parametrize("reply", ["The alarm is not armed.", "Disarming the alarm.", "security armed: false"])
def test_disarmed_is_not_armed(reply):
    assert read(reply) == {"security.armed": "disarmed"}


@pytest.mark.parametrize("reply", ["I won't arm the alarm.", "I did not arm the alarm."])
def test_a_denied_state_is_no_setting(reply):
    assert read(reply) == {}


def test_fan_speed_1_is_not_2():
    assert not same_settings("Fan speed 1.", "Fan speed 2.", DEVICES)
    assert same_settings("Fan speed 1.", "The fan speed is now at 1!", DEVICES)


def test_volume_70_is_not_71_nor_seven():
    assert not same_settings("TV volume 70.", "TV volume 71.", DEVICES)
    assert not same_settings("TV volume 70.", "TV volume 7.", DEVICES)


@pytest.mark.parametrize(
    "reply",
    [
        "What brightness would you like for the lights?",
        "Would you like the color to be warm as well?",
        "Sure. Should I set the TV volume to 30?",
    ],
)
def test_a_question_sets_nothing_but_names_its_devices(reply):
    assert read(reply) == {}


def test_a_question_names_devices():
    assert parse("Shall I dim the lights or the TV?", DEVICES).devices == {"lights", "tv"}


@pytest.mark.parametrize(
    "reply",
    [
        "Enjoy your time with the postcard from 1920s Paris.",
        "Setting the studio lights to 2700K.",
        "The TV will turn off at 18:30.",
        "I'll turn on the TV for 20 minutes.",
        "Raising the speaker volume by 10.",
        "Your indoor garden will stay warm and cozy. I hope you have a cool, warm and cozy evening.",
        "Heater set to warm.",
        "Enjoy Netflix!",
        "I can adjust the volume, brightness and color for you.",
        "",
    ],
)
def test_reads_no_setting_where_there_is_none(reply):
    assert read(reply) == {}


def test_no_device_is_named_by_a_part_of_a_word():
    assert parse("Back in the spacecraft: delight, lighthouse, activity.", DEVICES).devices == frozenset()


def test_device_context_carries_over_sentences():
    assert read("The AC is in auto mode. TV next. Brightness at 60.") == {
        "ac.mode": "auto",
        "tv.brightness": 60,
    }


def test_a_parameter_of_several_devices_stays_open_without_any_device():
    assert read("Volume set to 40.") == {".volume": 40}
    assert same_settings("Volume set to 40.", "Setting the volume to 40.", DEVICES)
    assert not same_settings("Volume set to 40.", "Setting the TV volume to 40.", DEVICES)


def test_a_value_out_of_range_is_kept_where_it_is_named():
    assert read("AC temperature 72 degrees.") == {"ac.temperature": 72}
    assert read("AC to 72.") == {}  # no setting of an AC can be 72


def test_words_belong_to_the_device_that_has_them():
    assert read("Setting the AC to cool and the lights to cool.") == {
        "ac.mode": "cool",
        "lights.color": "cool",
    }


def test_is_driven_by_the_schema_alone():
    oven = Device("oven", (Parameter("heat", 0, 9), Parameter("door", values=("open", "shut"))), ("stove",))
    settings = parse("The stove is set to heat 7, door shut.", (oven,))
    assert settings.devices == {"oven"}
    assert dict(settings.values) == {("oven", "heat"): 7, ("oven", "door"): "shut"}
    assert dict(parse("Lights to 50 brightness.", (oven,)).values) == {}


@pytest.mark.parametrize(
    ("text", "devices", "settings"),
    [
        ("\x00", set(), {}),
        ("٣ lights ٤", {"lights"}, {"lights.brightness": 4.0}),
        ("🔥" * 1000, set(), {}),
        ("1" * 5000, set(), {}),
        ("of of of 1 1 1 tv tv , , to", {"tv"}, {}),
        ("-", set(), {}),
        ("’s", set(), {}),
    ],
)
def test_odd_text_is_read_without_fuss(text, devices, settings):
    assert parse(text, DEVICES).devices == devices
    assert read(text) == settings


def test_real_replies():
    if not SAMPLE.exists():
        pytest.skip(f"the real sample {SAMPLE} is not here")
    lines = SAMPLE.read_text(encoding="utf-8").splitlines()
    replies = [m["text"] for line in lines for m in json.loads(line)["messages"] if m["role"] == "assistant"]
    assert len(replies) == 400
    read_replies = [parse(reply, DEVICES) for reply in replies]
    settings = [key for reading in read_replies for key in reading.values]
    # Counts checked against the replies by eye; a change of the parser that moves them needs the same look.
    assert sum(bool(reading.values) for reading in read_replies) == 240
    assert len(settings) == 531
    assert len([key for key in settings if not key[0]]) == 1
    for reply, reading in zip(replies, read_replies, strict=True):
        said = set(reply.lower().replace("%", " ").replace("°", " ").replace(".", " ").replace(",", " ").split())
        for value in reading.values.values():
            if not isinstance(value, str):
                assert f"{value:g}" in said, reply
