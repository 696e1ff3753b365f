"""Fitted adapters in the store by who has fitted them: no plugin can fill the place of another's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from harness.store import Store, canonical_hash, plugin_hash
from harness.workers.chain import Chain

ADAPTERS = "adapters"


def owners_of(chain: Chain) -> list[str]:
    """Who may have fitted what a method gets: its own plugin first, then those that it stands on."""
    return [plugin_hash(method.source) for method, _ in chain.values()]


def place_of(owner: str, key: str) -> str:
    """The name of the folder in which an owner's adapters lie."""
    return canonical_hash([owner, key])


def found(store: Store, owners: Sequence[str], key: str) -> Path | None:
    """The folder of whole adapters that one of the owners has fitted."""
    folders = (store.find(ADAPTERS, place_of(owner, key)) for owner in owners)
    return next(filter(None, folders), None)


class OwnedStore(Store):
    """A store as one method's fits see it: adapters that its bases have fitted are found, too."""

    def __init__(self, store: Store, owners: Sequence[str]) -> None:
        super().__init__(store.root, store.note)
        self._store, self._owners = store, owners

    def find(self, kind: str, key: str) -> Path | None:
        if kind != ADAPTERS:
            return super().find(kind, key)
        return found(self._store, self._owners, key)

    def cached(self, kind: str, key: str, make: Callable[[Path], None]) -> Path:
        if kind != ADAPTERS:
            return super().cached(kind, key, make)
        below = found(self._store, self._owners[1:], key)
        return below or self._store.cached(kind, place_of(self._owners[0], key), make)
