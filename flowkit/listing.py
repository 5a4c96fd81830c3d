"""Lists of names and problems in messages: the first are named, the rest is only counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

MAX_PROBLEMS = 20
"""Problems that are printed before the rest is only counted."""


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


def problem_lines(problems: Sequence[str], count: int | None = None) -> str:
    r"""Return the first `MAX_PROBLEMS` problems, one on each line, and how many more there are.

    Parameters
    ----------
    problems : sequence of str
    count : int, optional
        How many there are in all, where not all of them were kept.

    Examples
    --------
    >>> problem_lines(["a.csv:2: no label.", "a.csv:3: no label."], 40)
    'a.csv:2: no label.\na.csv:3: no label.\n... and 20 more.'
    """
    more = (len(problems) if count is None else count) - MAX_PROBLEMS
    return "\n".join([*problems[:MAX_PROBLEMS], *([f"... and {more} more."] if more > 0 else [])])


def word_counts(words: Iterable[str]) -> dict[str, int]:
    """Return how often each word occurs, most frequent first; capitals make no other word.

    Parameters
    ----------
    words : iterable of str

    Returns
    -------
    dict of str to int
        Each word in its most frequent spelling; equally frequent words are in order of the alphabet.

    Examples
    --------
    >>> word_counts(["others", "fear", "Others", "others"])
    {'others': 3, 'fear': 1}
    """
    spellings: dict[str, Counter[str]] = {}
    for word, number in Counter(words).items():
        spellings.setdefault(word.casefold(), Counter())[word] += number
    shown = {max(found, key=lambda word: (found[word], word)): found.total() for found in spellings.values()}
    return dict(sorted(shown.items(), key=lambda item: (-item[1], item[0])))
