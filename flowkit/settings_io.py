"""Settings as text, for both programs: TOML files, `--set`, and a listing of what there is.

A settings class is a frozen dataclass whose fields all have defaults. A field may itself be such a class: it is a table of the
TOML. Types come from the annotations; effect and unit come from the section Attributes of the class's docstring, so that each
stands in one place:

    size : int, in pixels
        Side of the square crop.

`settings_classes` is what such a class can do without any file.
"""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import json
import re
import textwrap
import tomllib
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from flowkit.errors import ConfigError, DiskFull
from flowkit.settings_classes import setting_types
from flowkit.storage.durable_files import FULL, replace_file
from flowkit.storage.safe_files import read_regular

MAX_CONFIG_BYTES = 1 << 20
WIDTH = 100
"""Of the comments in a file that is written."""
_UNIT = re.compile(r", in (?P<unit>[^{}]+)$")


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting, as a listing shows it.

    Attributes
    ----------
    name : str
        Dotted, as `--set` takes it.
    value, default : bool, int, float, str or tuple of str
    choices : tuple
        All values there are; empty where they cannot be listed.
    unit : str
        Empty for a pure number, a word or a choice.
    effect : str
    """

    name: str
    value: Any
    default: Any
    choices: tuple[Any, ...]
    unit: str
    effect: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return dataclasses.asdict(self)


# ---------------------------------------------------------------------------------------------------------------- reading


def load_values(file: str | Path | None = None, assignments: Sequence[str] = (), **flags: Any) -> dict[str, Any]:
    """Settings from a TOML file, then `--set` assignments, then flags; the later wins.

    Parameters
    ----------
    file : str or Path, optional
    assignments : sequence of str
        Such as "tvl1.lambda_=0.1"; the value is TOML, or bare text.
    **flags
        Dotted names with double underscores for dots (`align__size=128`); None means not given.

    Returns
    -------
    dict
        Nested, as `settings_classes.build` takes it; no name has been looked at.

    Raises
    ------
    ConfigError
    """
    values = {} if file is None else _read_toml(Path(file))
    problems = []
    for text in assignments:
        name, equals, value = text.partition("=")
        if name.strip() and equals:
            _assign(values, name.strip(), _toml_value(value.strip()))
        else:
            problems.append(f"settings: assignment must look like NAME=VALUE; got {text!r}. Correct it.")
    if problems:
        raise ConfigError("\n".join(problems))
    for name, value in flags.items():
        if value is not None:
            _assign(values, name.replace("__", "."), value)
    return values


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Each setting that differs between two nested dicts, as "tvl1.lambda_ 0.15 -> 0.1"."""
    found = []
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            found.append(f"{prefix}{key} {before} -> {after}")
    return found


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_regular(file, MAX_CONFIG_BYTES).decode("utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{file}: settings must be a readable TOML file; got {error.strerror}. Check the path."
        ) from error
    except (ValueError, RecursionError) as error:  # the second: brackets without end
        raise ConfigError(f"{file}: settings must be a readable TOML file; got {error}. Correct the file.") from error


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text  # bare words need no quotes on a command line


def _assign(values: dict[str, Any], dotted: str, value: Any) -> None:
    *tables, key = dotted.split(".")
    for table in tables:
        values = values.setdefault(table, {})
        if not isinstance(values, dict):
            raise ConfigError(
                f"settings: {dotted} must name a setting; got a value where {table} should be a table. Correct it."
            )
    values[key] = value


# ---------------------------------------------------------------------------------------------------------------- listing


def listing(settings: Any) -> list[Setting]:
    """Every setting of an instance of a settings class, in the order of its TOML."""
    return [setting for prefix, table in _tables(settings) for setting in _of_table(table, prefix)]


def to_toml(settings: Any, title: Sequence[str], left_out: Mapping[str, str] | None = None, width: int = WIDTH) -> str:
    """A settings file with a comment for each setting, which `--config` takes back.

    Parameters
    ----------
    settings : instance of a settings class
    title : sequence of str
        Paragraphs of the comment that it begins with.
    left_out : mapping, optional
        By the name of a setting that is written as a comment only: why.
    width : int
        Of the comments.
    """
    lines = list(itertools.chain.from_iterable([*_comment(text, width), "#"] for text in title))[:-1]
    for prefix, table in _tables(settings):
        if prefix:
            lines += ["", "", f"[{prefix[:-1]}]", *_comment(_first_sentence(type(table)), width)]
        for setting in _of_table(table, prefix):
            lines += ["", *_entry(setting, (left_out or {}).get(setting.name), width)]
    return "\n".join(lines) + "\n"


def write_settings(out: Path, text: str, *, overwrite: bool) -> None:
    """Write a settings file; one that is there stays, unless it is to be overwritten.

    Raises
    ------
    ConfigError
    OSError
        The disk is full.
    """
    if out.is_dir():
        raise ConfigError(f"--out: {out} is a folder. Add the name of a file.")
    try:
        if overwrite:
            replace_file(out, text.encode())
        else:
            with out.open("xb") as file:
                file.write(text.encode())
    except FileExistsError:
        raise ConfigError(f"--out: {out} is there already. Choose another name, or pass --overwrite.") from None
    except OSError as error:
        if isinstance(error, DiskFull) or error.errno in FULL:
            raise
        raise ConfigError(
            f"--out: {out} cannot be written ({error.strerror}). Make its folder, or choose another place."
        ) from error


def _tables(settings: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The settings class itself and each table within, with what goes before its names."""
    yield prefix, settings
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            yield from _tables(value, f"{prefix}{field.name}.")


def _of_table(table: Any, prefix: str) -> Iterator[Setting]:
    cls: Any = type(table)
    default = cls()
    documented, hints = _documented(cls), setting_types(cls)
    for field in dataclasses.fields(table):
        value, hint = getattr(table, field.name), hints[field.name]
        if not dataclasses.is_dataclass(value):
            unit, effect = documented.get(field.name, ("", ""))
            choices = typing.get_args(hint) if typing.get_origin(hint) is Literal else ()
            yield Setting(prefix + field.name, value, getattr(default, field.name), choices, unit, effect)


@cache
def _documented(cls: Any) -> dict[str, tuple[str, str]]:
    """Unit and effect of each field, from the section Attributes of a docstring in NumPy's form."""
    lines = iter(inspect.cleandoc(cls.__doc__ or "").splitlines())
    found: dict[str, tuple[str, str]] = {}
    names: list[str] = []
    for line in itertools.islice(itertools.dropwhile(lambda text: text != "Attributes", lines), 2, None):
        head, colon, form = line.partition(" : ")
        if line.startswith(" "):
            found |= {name: (found[name][0], f"{found[name][1]} {line.strip()}".strip()) for name in names}
        elif colon:
            names = head.split(", ")
            unit = _UNIT.search(form)
            found |= dict.fromkeys(names, (unit["unit"] if unit else "", ""))
        elif line:
            break  # the next section
    return found


def _first_sentence(cls: Any) -> str:
    return str(cls.__doc__ or "").partition("\n")[0]


def _comment(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)


def _entry(setting: Setting, why_left_out: str | None, width: int) -> list[str]:
    facts = [
        f"One of {', '.join(map(_toml, setting.choices))}." if setting.choices else "",
        f"Unit: {setting.unit}." if setting.unit else "",
        f"Default: {_toml(setting.default)}.",
    ]
    comment = _comment(setting.effect, width) + _comment(" ".join(filter(None, facts)), width)
    assignment = f"{setting.name.rpartition('.')[2]} = {_toml(setting.value)}"
    if why_left_out is None:
        return [*comment, assignment]
    return [*comment, *_comment(f"Left out: {why_left_out}", width), f"# {assignment}"]


def _toml(value: Any) -> str:
    """A value as TOML has it."""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # the one sign that JSON lets stand
    return str(value).lower() if isinstance(value, bool) else repr(value)
