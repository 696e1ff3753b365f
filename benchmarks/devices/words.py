"""The small English words by which a setting is recognised: what ends a clause, what links, what denies.

Sets of lower-case tokens only; `settings` says how they are used.
"""

from __future__ import annotations


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


CLAUSE_ENDS = _set(", ; ( ) & — – + and with but while then plus along also")
DEGREES = _set("degrees degree ° ℃ celsius fahrenheit")
PERCENT = _set("% percent")
# A number before one of these is no setting: a duration, a time of day, a count.
OTHER_UNITS = _set(
    """
    am pm o'clock second seconds sec minute minutes min mins hour hours hr hrs day days k kelvin people
    songs times years pages meters miles km steps
    """
)
# A number after one of these is where a setting comes from, not where it goes.
NOT_THE_GOAL = _set("from by than was were of previously until till after")
# What may stand between a parameter and its value: "color is now set to a nice warm".
LINKS = _set(
    """
    to at of is are be been being it's now set on in into as the a an its = : - level mode adjusted changed
    switched currently nice soft comfortable cozy gentle
    """
)
SWITCHED_TO = _set("to in on into")  # right before a value: "switching to cool"
VALUE_OPENERS = SWITCHED_TO | _set("at as is are now set")  # right before a value, beside its device
VALUE_CLOSERS = _set("for now so when while at in on as to until if right today tonight please")  # right after it
NEGATIONS = _set("not don't won't can't cannot never without didn't isn't aren't no")
OWNERS = _set("of on for in from")  # "brightness of the tv"
