"""Code that is named as "module:attribute", in settings also as "module:attribute@version": found by import, and nowhere else.

Nothing is imported before a run asks for it: to read a settings file, a folder or its run.json never imports what stands there.
"""

from __future__ import annotations

import difflib
import importlib
import operator
import re
from typing import Any, Final

from flowkit.errors import ConfigError

_WORD = r"[^\W\d]\w*"
_NAME: Final = re.compile(rf"(?P<module>{_WORD}(\.{_WORD})*):(?P<attribute>{_WORD}(\.{_WORD})*)(@(?P<version>.+))?")


def is_name(text: str) -> bool:
    """Return whether a text is "module:attribute" or "module:attribute@version"."""
    return _NAME.fullmatch(text) is not None


def imported(name: str) -> Any:
    """Import what a name means, for which `is_name` holds; the version is not looked at.

    Raises
    ------
    ImportError, AttributeError
        Or whatever else the module raises.
    """
    module, attribute, _ = _parts(name)
    return operator.attrgetter(attribute)(importlib.import_module(module))


def load(name: str, setting: str) -> Any:
    """Import what a setting names.

    Parameters
    ----------
    name : str
        For which `is_name` holds; the version is not looked at.
    setting : str
        Dotted name of the setting, for messages.

    Raises
    ------
    ConfigError
        The module cannot be imported, or has no such attribute.
    """
    module_name, attribute, _ = _parts(name)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # code of others may raise anything
        raise ConfigError(
            f"settings: {setting}: {module_name} cannot be imported ({type(error).__name__}: {error}). Install it, or put its "
            "folder on PYTHONPATH, on every machine that computes."
        ) from error
    try:
        return operator.attrgetter(attribute)(module)
    except AttributeError as error:
        near = difflib.get_close_matches(attribute, dir(module), 1)
        advice = f"Did you mean {module_name}:{near[0]}?" if near else "Correct the name."
        raise ConfigError(f"settings: {setting}: {module_name} has no {attribute}. {advice}") from error


def pinned(name: str, setting: str) -> str:
    """Return a name with the version of what it names, as "module:attribute@version".

    Parameters
    ----------
    name, setting : str
        As of `load`.

    Raises
    ------
    ConfigError
        As of `load`; or the attribute `version` is no text of one line, or differs from the version in the name.
    """
    module_name, attribute, wanted = _parts(name)
    version = getattr(load(name, setting), "version", None)
    if not (isinstance(version, str) and version.strip() and version.isprintable()):
        raise ConfigError(
            f"settings: {setting}: {module_name}:{attribute} must have a version, a text of one line; got {version!r}. Give it "
            "one, and change it with everything that changes a result."
        )
    if wanted and wanted != version:
        raise ConfigError(
            f"settings: {setting}: {module_name}:{attribute} must have the version {wanted}; got {version}. Install that version, "
            "or leave the version out of the setting and use another folder."
        )
    return f"{module_name}:{attribute}@{version}"


def _parts(name: str) -> tuple[str, str, str]:
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"{name!r} is not module:attribute")
    return match["module"], match["attribute"], match["version"] or ""
