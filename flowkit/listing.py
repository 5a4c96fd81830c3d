"""Lists of names in messages: the first are named, the rest is only counted."""

from __future__ import annotations

from collections.abc import Iterable


def listed(names: Iterable[object], limit: int = 10, between: str = ", ") -> str:
    """Return names in a row; beyond the first `limit`, they are only counted.

    Parameters
    ----------
    names : iterable
        Written as `str` writes them.
    limit : int
        Most names that are written out.
    between : str
        What separates them.

    Returns
    -------
    str
        Empty if there are no names.

    Examples
    --------
    >>> listed(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    texts = [str(name) for name in names]
    more = f" and {len(texts) - limit} more" if len(texts) > limit else ""
    return between.join(texts[:limit]) + more
