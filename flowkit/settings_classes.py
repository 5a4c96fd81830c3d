"""Classes of settings, for both programs: from and to plain values, their fingerprint, and words for what is wrong.

A settings class is a frozen dataclass whose fields all have defaults. A field may itself be such a class: it is a table of the
TOML. Types come from the annotations; where the values that a setting takes are known only while the program runs, its field has
the metadata `CHOICES`: a function that gives them.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Self, cast

from flowkit.errors import ConfigError

CHOICES = "choices"
ALSO = "also"
"""In the metadata of a setting with `CHOICES`: a function that says whether a text is good that is none of them."""


class Settings:
    """What a settings class as a whole can do; a base without fields."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Return a nested plain dict in declaration order, as JSON gives it back: what run.json stores."""
        return _plain(self)

    def fingerprint(self) -> str:
        """Return 16 hex digits over every setting, equal exactly where results may be mixed."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:16]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "settings") -> Self:
        """Build from a nested mapping, as a TOML file or run.json holds it; what is left out keeps its default.

        Parameters
        ----------
        values : mapping
        where : str
            What the messages begin with.

        Raises
        ------
        ConfigError
            Listing every unknown key, wrong type or value out of range.
        """
        return cast(Self, build(cls, values, where))


def _plain(settings: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, hint in typing.get_type_hints(type(settings)).items():
        value = getattr(settings, name)
        if dataclasses.is_dataclass(value):
            found[name] = _plain(value)
        elif isinstance(value, tuple):
            found[name] = list(value)
        else:
            found[name] = float(value) if hint is float else value  # 1 and 1.0 are one setting, with one fingerprint
    return found


def refuse(checks: Mapping[str, tuple[bool, str]], settings: Any, table: str = "") -> None:
    """Refuse values out of range, all of them at once.

    Parameters
    ----------
    checks : mapping
        By the name of a setting: whether its value is good, and what it must be.
    settings : instance of a settings class
    table : str
        What goes before the names, with its dot.

    Raises
    ------
    ConfigError
    """
    problems = [
        f"settings: {table}{name} must be {expectation}; got {getattr(settings, name)!r}. Correct it."
        for name, (good, expectation) in checks.items()
        if not good
    ]
    if problems:
        raise ConfigError("\n".join(problems))


def build(cls: Any, values: Mapping[str, Any], where: str = "settings") -> Any:
    """A settings class from a nested mapping; what is left out keeps its default.

    Parameters
    ----------
    cls : type
        If it has a class method `preset`, the key "preset" names what the other keys of the table change.
    values : mapping
    where : str
        What the messages begin with.

    Raises
    ------
    ConfigError
        Listing every unknown name, wrong type and value out of range.
    """
    refuse_other_than_table(values, where)
    problems = unknown_settings(cls, values, where)
    built = _build(cls, values, where, "", problems)
    if problems:
        raise ConfigError("\n".join(problems))
    return built


def refuse_other_than_table(values: object, where: str) -> None:
    """Refuse what is no mapping of names and values.

    Raises
    ------
    ConfigError
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where}: settings must be a table of names and values; got {values!r}. Correct it.")


def unknown_settings(cls: Any, values: Mapping[str, Any], where: str) -> list[str]:
    """A message for each name that a settings class does not have; the nearest one that it has is named."""
    known = setting_names(cls)
    return [
        f"{where}: {name}: unknown setting. {_did_you_mean(_nearest(name, known), f'Known: {_siblings(name, known)}.')}"
        for name in _unknown(cls, values)
    ]


def setting_names(cls: Any, prefix: str = "") -> list[str]:
    """Every name that may stand in a settings file, dotted: settings and tables."""
    names = [f"{prefix}preset"] if hasattr(cls, "preset") else []
    for name, hint in typing.get_type_hints(cls).items():
        names.append(prefix + name)
        if dataclasses.is_dataclass(hint):
            names += setting_names(hint, f"{prefix}{name}.")
    return names


def setting_types(cls: Any) -> dict[str, Any]:
    """Return the type of each setting of a class; where a function gives the values that one takes, they are its type."""
    found = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if CHOICES in field.metadata:
            found[field.name] = Literal.__getitem__(tuple(field.metadata[CHOICES]()))
    return found


def _unknown(cls: Any, values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted names in a mapping that a settings class does not have."""
    hints = typing.get_type_hints(cls)
    for key, value in values.items():
        if key not in hints and not (key == "preset" and hasattr(cls, "preset")):
            yield f"{prefix}{key}"
        elif dataclasses.is_dataclass(hints.get(key)) and isinstance(value, Mapping):
            yield from _unknown(hints[key], value, f"{prefix}{key}.")


def _nearest(name: str, known: Sequence[str]) -> str:
    """The known name that was probably meant, empty if none is near."""
    last = name.rpartition(".")[2].strip("_")
    same = [one for one in known if one.rpartition(".")[2].strip("_") == last]  # in another table, or without its dash
    return "".join(difflib.get_close_matches(name, same, 1, 0.0) or difflib.get_close_matches(name, known, 1, 0.7))


def _siblings(name: str, known: Sequence[str]) -> str:
    table = name.rpartition(".")[0]
    return ", ".join(one for one in known if one.rpartition(".")[0] == table)


def _did_you_mean(near: str, otherwise: str) -> str:
    return f"Did you mean {near}?" if near else otherwise


def _build(cls: Any, values: Mapping[str, Any], where: str, prefix: str, problems: list[str]) -> Any:
    """One settings class from one mapping; problems are collected, so that the user sees all of them at once."""
    values, own = dict(values), list[str]()
    base = _preset(cls, values, own)
    hints = setting_types(cls)
    good: dict[str, Any] = {}
    for key, value in values.items():
        hint, name = hints.get(key), prefix + key
        if hint is None:
            own.append("")  # reported already; what the values of a table mean together cannot be judged now
        elif dataclasses.is_dataclass(hint):
            if isinstance(value, Mapping):
                good[key] = _build(hint, value, where, f"{name}.", problems)
            else:
                own.append(f"{where}: {name} must be a table; got {value!r}. Set {name}.NAME instead.")
        elif fits(hint, value) or _is_also(cls, key, value):
            good[key] = _converted(hint, value)
        else:
            own.append(f"{where}: {name} must be {_expectation(hint)}; got {value!r}. {_advice(hint, value)}")
    if not own:
        try:
            return dataclasses.replace(base, **good)
        except ValueError as error:
            own.append(str(error))
    problems += filter(None, own)
    return base


def _is_also(cls: Any, name: str, value: Any) -> bool:
    metadata = next(field.metadata for field in dataclasses.fields(cls) if field.name == name)
    return isinstance(value, str) and ALSO in metadata and bool(metadata[ALSO](value))


def _preset(cls: Any, values: dict[str, Any], problems: list[str]) -> Any:
    """What the values of a table change: the defaults, or the preset that the table names."""
    if hasattr(cls, "preset") and "preset" in values:
        try:
            return cls.preset(values.pop("preset"))
        except ValueError as error:
            problems.append(str(error))
    return cls()


def fits(hint: Any, value: Any) -> bool:
    """Whether a JSON or TOML value may stand where a type is declared."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return any(value == one and type(value) is type(one) for one in inner)
    if _is_union(hint):
        return any(fits(one, value) for one in inner)
    if origin is tuple:
        kinds = [inner[0]] * len(value) if isinstance(value, (list, tuple)) and inner[-1] is ... else list(inner)
        return isinstance(value, (list, tuple)) and len(kinds) == len(value) and all(map(fits, kinds, value))
    return type(value) in (int, float) if hint is float else type(value) is hint


def _converted(hint: Any, value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(_converted(typing.get_args(hint)[0], one) for one in value)
    return float(value) if hint is float else value


def _expectation(hint: Any) -> str:
    if _is_union(hint):
        return " or ".join(map(_expectation, typing.get_args(hint)))
    if typing.get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, typing.get_args(hint)))}"
    if typing.get_origin(hint) is tuple:
        return 'a list, such as ["one", "another"]'
    return f"of type {getattr(hint, '__name__', hint)}" if typing.get_origin(hint) is None else f"of type {hint}"


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (types.UnionType, typing.Union)


def _advice(hint: Any, value: Any) -> str:
    kinds = typing.get_args(hint) if _is_union(hint) else (hint,)
    choices = [str(one) for kind in kinds if typing.get_origin(kind) is Literal for one in typing.get_args(kind)]
    near = difflib.get_close_matches(str(value), choices, 1)
    return _did_you_mean("".join(near), "Choose one of them." if choices else "Correct it.")
