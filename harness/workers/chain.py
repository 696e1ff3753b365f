"""A recipe's method and all that it stands on. Cards and options alone: no plugin is called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from harness.config import Recipe
from harness.contract import Method, plain
from harness.errors import ConfigError

Chain = Mapping[str, tuple[Method, Any]]  # a method and all that it stands on, each with its options


def below(recipe: Recipe, name: str) -> Recipe:
    """A method that the recipe's stands on, without its control."""
    return Recipe(name, recipe.others.get(name), recipe.others)


def chain_of(methods: Mapping[str, Method], recipe: Recipe) -> dict[str, tuple[Method, Any]]:
    """A method and all that it stands on, deepest last, each with its options."""
    method = methods[recipe.method]
    options = own_options(method, recipe.options)
    found = {recipe.method: (method, options)}
    for name in method.requires(options):
        found |= chain_of(methods, below(recipe, name))
    return found


def own_options(method: Method, options: Any) -> Any:
    """Options as an instance of the dataclass on the method's own card; None: its defaults.

    They may have been read with the same card of another process. Raises ConfigError.
    """
    if options is None or isinstance(options, method.card.options):
        return method.card.options() if options is None else options
    try:
        return TypeAdapter(method.card.options).validate_python(plain(options))
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
        raise ConfigError("\n".join(f"method '{method.name}': {fault}" for fault in faults)) from error


def options_of(chain: Chain) -> list[Any]:
    """The options of a chain as JSON, for hashes."""
    return [[name, plain(options)] for name, (_, options) in chain.items()]
