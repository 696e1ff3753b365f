"""The grammar: how people ask and how the assistant answers, in six tones.

Only text lives here; who says what, and when, is decided in `world` and `simulator`. Every tone has eight
openers, five frames and eight closers, so a tone alone has 8 x 5 x 9 reply shapes before any setting is filled in.
A *mix* says which phrases a world draws from and how popular each is; the embedded backbone saw another one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mix:
    """Indices of phrases and frames, each with how often it is somebody's favourite.

    tones  the tone that each cluster leans to; empty: drawn anew for each world. Tones differ in how alike their
           replies are, so drawing them would make the ceilings of worlds differ by some 2 points.
    """

    phrases: tuple[int, ...]
    popularity: tuple[float, ...]
    frames: tuple[int, ...]
    frame_popularity: tuple[float, ...]
    tones: tuple[int, ...] = ()


MIXES: Mapping[str, Mix] = {
    "house": Mix(
        phrases=(0, 1, 2, 3, 4, 5),
        popularity=(0.36, 0.22, 0.15, 0.11, 0.09, 0.07),
        frames=(0, 1, 2, 3),
        frame_popularity=(0.4, 0.27, 0.19, 0.14),
        tones=(0, 1, 2, 3, 4, 5),
    ),
    "street": Mix((7, 5, 6, 2, 1, 4, 0, 3), (0.125,) * 8, (4, 2, 1, 3, 0), (0.2,) * 5),
}


@dataclass(frozen=True, slots=True)
class Tone:
    """A way of speaking. Frames hold {device} and {settings}; `thanks` answers small talk."""

    name: str
    hint: str
    openers: tuple[str, ...]
    frames: tuple[str, ...]
    closers: tuple[str, ...]
    thanks: tuple[str, ...]


TONES: tuple[Tone, ...] = (
    Tone(
        "formal",
        "expects courteous and formal service",
        (
            "Certainly.",
            "Very well.",
            "As you wish.",
            "Of course.",
            "At once.",
            "With pleasure.",
            "Indeed.",
            "Understood.",
        ),
        (
            "The {device} is now set to {settings}.",
            "I have set the {device} to {settings}.",
            "The {device} has been adjusted to {settings}.",
            "You will find the {device} at {settings}.",
            "I am setting the {device} to {settings}.",
        ),
        (
            "Is there anything else you require?",
            "I remain at your service.",
            "Please tell me if it does not suit you.",
            "I trust this is satisfactory.",
            "Will there be anything further?",
            "May I assist with another matter?",
            "Kindly let me know your next wish.",
            "It would be my honor to help again.",
        ),
        (
            "You are most welcome.",
            "It is my pleasure to serve you.",
            "Not at all, I am glad to be of service.",
            "The pleasure is entirely mine.",
            "I am honored, have a pleasant day.",
            "Thank you for your kind words.",
            "I wish you a very good day.",
            "It was no trouble whatsoever.",
        ),
    ),
    Tone(
        "terse",
        "wants short answers without chatter",
        ("Done.", "Ok.", "Set.", "Yes.", "Ready.", "Fine.", "Check.", "Right."),
        (
            "{device}: {settings}.",
            "{device} at {settings}.",
            "{device} now {settings}.",
            "Now {device} {settings}.",
            "{device} to {settings}.",
        ),
        ("Next?", "More?", "That is all.", "Over.", "Anything?", "End.", "Go on.", "Else?"),
        ("Sure.", "No problem.", "Noted.", "Good.", "Bye.", "Later.", "Fine then.", "Right then."),
    ),
    Tone(
        "friendly",
        "enjoys a warm and friendly chat",
        (
            "Sure thing, friend!",
            "Happy to help!",
            "You got it!",
            "Hey, no worries!",
            "Absolutely, my friend!",
            "Lovely idea!",
            "Great choice!",
            "Of course, buddy!",
        ),
        (
            "Your {device} is at {settings} now.",
            "I just put your {device} on {settings}.",
            "I turned your {device} to {settings} for you.",
            "So your {device} is all set with {settings}.",
            "We have your {device} on {settings} now.",
        ),
        (
            "Hope you like it!",
            "Just shout if you want more!",
            "Enjoy it, friend!",
            "Have a great time!",
            "Tell me if I can do more for you!",
            "You deserve it!",
            "Let us make it a good day!",
            "Always happy to chat!",
        ),
        (
            "Any time, friend!",
            "Aw, you are so welcome!",
            "Glad I could help you out!",
            "You are the best, see you soon!",
            "It is always nice talking to you!",
            "Have a lovely one, buddy!",
            "Cheers, take it easy!",
            "That makes my day!",
        ),
    ),
    Tone(
        "playful",
        "likes jokes and a playful voice",
        (
            "Abracadabra!",
            "Boom!",
            "Beep boop!",
            "Your wish, my command!",
            "Hold on to your hat!",
            "Ta-da!",
            "Aye aye, captain!",
            "Wizard mode on!",
        ),
        (
            "The {device} just danced to {settings}!",
            "I tickled the {device} until it showed {settings}!",
            "One {device} with {settings}, hot from the oven!",
            "The {device} jumped to {settings}!",
            "My magic took the {device} to {settings}!",
        ),
        (
            "Who is the boss now?",
            "I should get a medal for this!",
            "Even the cat is impressed!",
            "No robots were harmed!",
            "Party time!",
            "High five!",
            "My circuits are smiling!",
            "The goldfish approves!",
        ),
        (
            "I will be here all week!",
            "Back to my cave of cables!",
            "Robots never sleep, ring me again!",
            "My job here is done, off flies the robot!",
            "I take tips in batteries!",
            "You make my wires blush!",
            "Over and out, captain!",
            "Poof, and I am gone!",
        ),
    ),
    Tone(
        "caring",
        "appreciates a gentle and caring manner",
        (
            "Gladly, dear.",
            "Let me take care of that.",
            "Rest easy.",
            "Leave it to me, dear.",
            "I am here for you.",
            "Do not worry.",
            "Take your time.",
            "Be at ease.",
        ),
        (
            "I have gently brought the {device} to {settings}.",
            "For your comfort the {device} is at {settings}.",
            "The {device} is resting at {settings} so you feel well.",
            "To keep you cozy the {device} went to {settings}.",
            "I made the {device} comfortable with {settings}.",
        ),
        (
            "Please look after yourself.",
            "I hope you can relax now.",
            "Make yourself comfortable.",
            "Tell me if you feel unwell.",
            "Stay warm and safe.",
            "You have earned some rest.",
            "Do drink some water too.",
            "Breathe and enjoy the calm.",
        ),
        (
            "Sleep well when you get there.",
            "You are always in my thoughts.",
            "Be kind to yourself today.",
            "I will keep watch while you rest.",
            "It warms my heart to help.",
            "Take good care, dear.",
            "May your day be gentle.",
            "I am never far away.",
        ),
    ),
    Tone(
        "technical",
        "prefers exact technical reports",
        (
            "Command accepted.",
            "Request processed.",
            "Update complete.",
            "Status ok.",
            "Input confirmed.",
            "Task executed.",
            "Signal received.",
            "Operation finished.",
        ),
        (
            "Device {device} reports {settings}.",
            "New state of {device}: {settings}.",
            "Parameters of {device} written: {settings}.",
            "Controller moved {device} to {settings}.",
            "Register of {device} holds {settings}.",
        ),
        (
            "System load is normal.",
            "Awaiting next command.",
            "Log entry created.",
            "No errors detected.",
            "Latency within limits.",
            "Checksum verified.",
            "Channel stays open.",
            "Queue is empty.",
        ),
        (
            "Session closed.",
            "Standby mode active.",
            "Acknowledged, logging off.",
            "End of transmission.",
            "All processes nominal.",
            "Connection kept alive.",
            "Feedback stored.",
            "Returning to idle.",
        ),
    ),
)

DEVICE_WORDS: Mapping[str, str] = {
    "tv": "tv",
    "ac": "ac",
    "lights": "lights",
    "speaker": "speaker",
    "security": "security",
}

GREETINGS = (
    "",
    "",
    "",
    "Hi there.",
    "Hello.",
    "Good {time}.",
    "I just got home.",
    "What a {weather} {time}.",
    "It is {weather} outside.",
    "I have some free time.",
    "Long day today.",
    "I am about to start.",
    "It feels like {temp} degrees.",
)
EXPLICIT = (
    "Set the {device} to {settings}, please.",
    "Could you put the {device} at {settings}?",
    "I would like the {device} at {settings}.",
    "Please change the {device} to {settings}.",
    "Turn the {device} to {settings}.",
    "Give me {settings} on the {device}.",
    "Can the {device} be at {settings}?",
    "Today I want the {device} with {settings}.",
    "Switch the {device} to {settings} now.",
    "Make it {settings} for the {device}.",
    "And the {device} with {settings}, thanks.",
    "Try {settings} on the {device}.",
)
USUAL = (
    "The usual for the {device}, please.",
    "You know how I like the {device}.",
    "Set the {device} as always.",
    "Put the {device} on my normal settings.",
    "Do the {device} like every {time}.",
    "The {device} the way I like it.",
    "Now my usual {device}.",
    "Get the {device} ready for my {time}.",
    "And the {device} as I always have it.",
    "Same {device} as every {time}, please.",
)
PARTIAL = (
    "Set the {device} to {settings}, the rest as usual.",
    "I want {settings} on the {device}, otherwise the usual.",
    "The {device} with {settings} and the rest my way.",
    "Put the {device} at {settings}, the rest as always.",
)
SMALL_TALK = (
    "Thanks, that is all.",
    "Perfect, thank you.",
    "That sounds good.",
    "Great, I like it.",
    "Nothing more for now.",
    "Wonderful, see you later.",
    "That will do for this {time}.",
    "You are a real help.",
)

Settings = Sequence[tuple[str, str]]  # (parameter, value), in the order in which they are said

_FORMS: Mapping[str, tuple[str, ...]] = {
    "armed": ("armed", "armed", "armed"),
    "temperature": ("temperature {v}", "{v} degrees", "temperature {v}"),
    "input_source": ("input {v}", "{v} input", "input {v}"),
    "color": ("color {v}", "{v} color", "color {v}"),
    "mode": ("mode {v}", "{v} mode", "mode {v}"),
}
_JOINS = (" and ", " with ", ", ")


def say_settings(settings: Settings, style: int) -> str:
    """The settings as words, e.g. ``brightness 40 and color warm``; `style` 0..2 picks form and joiner."""
    said = []
    for parameter, value in settings:
        if parameter == "armed":
            said.append("armed" if value == "true" else "disarmed")
            continue
        name = parameter.replace("_", " ")
        form = _FORMS.get(parameter, (f"{name} {{v}}", f"{{v}} {name}", f"{name} {{v}}"))[style]
        said.append(form.format(v=value))
    return _JOINS[style].join(said)


def sentence(template: str, device: str, settings: str) -> str:
    """A filled frame with its first letter in upper case."""
    text = template.format(device=DEVICE_WORDS[device], settings=settings)
    return text[0].upper() + text[1:]


STYLE_OF_TONE: Mapping[str, int] = {
    "formal": 0,
    "terse": 2,
    "friendly": 1,
    "playful": 1,
    "caring": 0,
    "technical": 2,
}
