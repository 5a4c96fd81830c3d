"""Data sets of one's own, from the folders that FLOWKIT_DATASETS names: the form of their layouts, and the code that reads them.

The code of NAME.py runs when that set is read, and at no other time. The folder was named by whoever runs flowkit; it is trusted
as any program is that they start.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from types import ModuleType
from typing import Any, Final

from flowkit.datasets.base import Annotation, DataSet
from flowkit.datasets.source import Source
from flowkit.errors import ConfigError, FlowkitError, ManifestError
from flowkit.labels.own_sets import OwnSet, own_folders, own_sets
from flowkit.labels.toml_form import (
    COUNT,
    LIST,
    NUMBER,
    TEXT,
    near,
    refuse,
    unknown_keys,
    value_problems,
    word_problems,
)
from flowkit.storage.safe_files import read_regular

MAX_MODULE_BYTES: Final = 1 << 20
_LAYOUT: Final = {
    **{"title": TEXT, "about": TEXT, "fps": NUMBER, "folders": LIST, "missing": LIST},
    **{"counted": COUNT, "other_folders": LIST},
}
_TABLE: Final = {"files": LIST, "file_of": TEXT, "sheets": LIST, "other_sheets": LIST}
_TEXTS: Final = (
    *("dataset", "subject", "clip", "onset", "apex", "offset", "label", "where", "serial"),
    *("fps", "named_label", "recording", "layout"),
)
"""Fields of an annotation that hold text."""


def own_datasets() -> Mapping[str, DataSet]:
    """Return the data sets of one's own, by name; none of their code has run.

    Raises
    ------
    ConfigError
        A folder or a TOML file cannot be used; every problem is listed.
    """
    return _datasets(own_folders())


@cache
def _datasets(folders: str) -> Mapping[str, DataSet]:
    sets = own_sets()
    refuse(
        [problem for own in sets.values() for problem in _layout_problems(own.table("layout"), f"{own.file}: layout")]
    )
    return {name: DataSet(name, partial(annotate, own)) for name, own in sets.items()}


# --- layout


def _layout_problems(layout: Mapping[str, Any], where: str) -> Iterator[str]:
    """Whatever has not the form that the head of layouts.toml describes; what is not named there is the module's own."""
    yield from value_problems(layout, _LAYOUT, ("title", "folders"), where)
    yield from word_problems(layout.get("lists", {}), f"{where}.lists")
    for name, table in layout.items():
        if name == "main" or (isinstance(table, dict) and {"files", "file_of", "columns"} & set(table)):
            yield from _table_problems(name, table, layout, f"{where}.{name}")


def _table_problems(name: str, table: Any, layout: Mapping[str, Any], where: str) -> Iterator[str]:
    if not isinstance(table, dict):
        yield f"{where} must be a table; got {table!r:.80}. Correct it."
        return
    yield from unknown_keys(table, (*_TABLE, "columns", "optional", "refused"), where)
    yield from value_problems(table, _TABLE, ("files",) if "file_of" not in table else (), where)
    yield from word_problems(table.get("refused", {}), f"{where}.refused")
    other = table.get("file_of", name)
    if not isinstance(layout.get(other), dict):
        yield f"{where}.file_of must name a table of [layout]; got {other!r}.{near(str(other), layout)} Correct it."
    yield from _column_problems(table, where)


def _column_problems(table: Mapping[str, Any], where: str) -> Iterator[str]:
    columns, optional = table.get("columns"), table.get("optional", {})
    if not isinstance(columns, dict) or not columns or not isinstance(optional, dict):
        yield f"{where}.columns must be a table, and so must optional; got {columns!r:.80}. Correct it."
        return
    places = [*columns.values(), *optional.values()]
    spelled = all(isinstance(place, list) and place and LIST[0](place) for place in places)
    numbered = all(isinstance(place, int) and not isinstance(place, bool) and place > 0 for place in places)
    if not spelled and not numbered:
        yield (
            f'{where}.columns must hold a list of spellings for each column, such as ["Subject"], or, without a header, a number '
            f"from 1 on for each; got {places!r:.80}. Correct it."
        )


# --- code


def annotate(own: OwnSet, source: Source) -> Iterator[Annotation]:
    """Run the module of a set, and yield what it says of each clip, checked.

    Parameters
    ----------
    own : OwnSet
    source : Source

    Raises
    ------
    ConfigError
        The module cannot be run, or has no `annotate`.
    ManifestError
        `annotate` fails, or yields something else.
    """
    function = _function(own)
    try:
        for annotation in function(source):
            yield _checked(own, annotation)
    except FlowkitError:
        raise
    except Exception as error:
        raise ManifestError(
            f"{own.module}: annotate must read the data set; got {_what(own, error)}. Correct it there, or in {own.file}."
        ) from error


def _function(own: OwnSet) -> Callable[[Source], Iterator[Annotation]]:
    """The function `annotate` of a module, which is run as it is: no compiled copy is written into its folder."""
    module = ModuleType(f"flowkit_own_{own.name}")
    module.__file__ = str(own.module)
    try:
        exec(compile(read_regular(own.module, MAX_MODULE_BYTES), str(own.module), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{own.module}: module must run; got {_what(own, error)}. Correct it.") from error
    function = getattr(module, "annotate", None)
    if not callable(function):
        raise ConfigError(
            f"{own.module}: module must have a function annotate(source); got none. Write it (docs/datasets/README.md)."
        )
    return function  # type: ignore[no-any-return]


def _what(own: OwnSet, error: BaseException) -> str:
    """An error in words, with the line of the module that it came from."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(own.module)]
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error}"  # names the line itself
    return f"{type(error).__name__}: {error}" + (f" (line {lines[-1]})" if lines else "")


def _checked(own: OwnSet, annotation: Any) -> Annotation:
    """An annotation whose fields are what the rest of flowkit takes them for."""
    if not isinstance(annotation, Annotation):
        raise ManifestError(
            f"{own.module}: annotate must yield an Annotation for each clip; got {type(annotation).__name__}. Correct it."
        )
    values = {name: getattr(annotation, name) for name in _TEXTS}
    values |= {f"extra[{name!r}]": text for name, text in annotation.extra.items()}
    for name, value in values.items():
        if not isinstance(value, str):
            raise ManifestError(
                f"{own.module}: {annotation.where}: {name} must be a text; got {value!r:.80}. Correct it, with str(...)."
            )
    folders = annotation.folders
    if isinstance(folders, str) or not folders or not all(isinstance(folder, str) for folder in folders):
        raise ManifestError(
            f"{own.module}: {annotation.where}: folders must be a list of texts; got {folders!r:.80}. Write [...] or "
            "source.tails(...)."
        )
    if annotation.dataset != own.name:
        raise ManifestError(
            f"{own.module}: {annotation.where}: dataset must be {own.name}; got {annotation.dataset!r}. Write source.name."
        )
    return annotation
