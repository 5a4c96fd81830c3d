"""Names in messages: the first are written out, the rest is counted."""

from __future__ import annotations

import pytest

from flowkit.listing import listed


@pytest.mark.parametrize(
    ("names", "limit", "text"),
    [
        ([], 2, ""),
        (["a"], 2, "a"),
        (["a", "b"], 2, "a, b"),
        (["a", "b", "c"], 2, "a, b and 1 more"),
        (range(12), 10, "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"),
    ],
)
def test_the_first_names_are_written_and_the_rest_counted(names: list[object], limit: int, text: str) -> None:
    assert listed(names, limit) == text
    assert listed(iter(names), limit, "; ") == text.replace(",", ";")
