"""The one family of errors that users see: what is wrong, where, and how to mend it.

Only `harness.cli` catches it; everything else raises. A programming error is never a HarnessError.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MOST_COMPARED, MOST_LISTED = 10_000, 50  # names


class HarnessError(Exception):
    """A fault of input, configuration or environment that the user can mend. Exit code 2 at the CLI."""


class ConfigError(HarnessError):
    """One or more faults in a configuration; the message lists all of them, one a line."""


class DataError(HarnessError):
    """A data file that cannot be used; the message names the file and, where there is one, the line."""


class PluginError(HarnessError):
    """A plugin that cannot be found, loaded or trusted with the contract."""


class Passing(Exception):  # noqa: N818 (an outcome, not an error)
    """An outcome of the harness's own that passes through a plugin's hook to whoever waits for it."""


class StoreError(HarnessError):
    """A stored run or adapter that cannot be read or written."""


def error_named(kind: str, text: str) -> HarnessError:
    """An error of another process, as the class that it was there."""
    known = globals().get(kind)
    return (known if isinstance(known, type) and issubclass(known, HarnessError) else HarnessError)(text)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence that helps after a typo: the nearest known name, else the list, or its beginning where it is long.

    Returns text such as ``did you mean 'seed'?`` or ``known: a, b, c``; never empty.
    """
    names = sorted(set(known))
    # To compare with each of a million names takes minutes; a typo seldom is in the first letters.
    alike = names if len(names) <= MOST_COMPARED else [n for n in names if n[:2] == name[:2]][:MOST_COMPARED]
    near = difflib.get_close_matches(name, alike, n=1, cutoff=0.6)
    if near:
        return f"did you mean '{near[0]}'?"
    more = f" and {len(names) - MOST_LISTED:,} more" if len(names) > MOST_LISTED else ""
    return "known: " + (", ".join(names[:MOST_LISTED]) + more if names else "none")
