"""What a grouping makes of the labels of data sets, and how it says that it does not know one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from flowkit.errors import ConfigError
from flowkit.labels.toml_form import enumerated, fold, near

RAW: Final = "raw"
"""The grouping that makes every label a class of its own."""
UNLABELLED: Final = "unlabelled"
"""Label of a clip of which nobody says what it shows; no grouping except "raw" takes it."""
LEFT_OUT: Final = "left out"
"""In counts of classes, what has none by design."""
FILE: Final = "classes.toml"


@dataclass(frozen=True, slots=True)
class LabelMap:
    """What a grouping makes of the labels of one data set.

    Attributes
    ----------
    classes : mapping of str to (str or None)
        Folded label to class, None where it is left out by design.
    spellings : mapping of str to str
        Folded label to the folded label that is meant.
    joint : str
        Sign between the labels of a joint emotion; empty where there are none.
    """

    classes: Mapping[str, str | None]
    spellings: Mapping[str, str]
    joint: str = ""

    def find(self, label: str) -> str | None:
        """Class of a folded label.

        Raises
        ------
        KeyError
        """
        if self.joint and self.joint in label:
            for part in label.split(self.joint):
                self.find(part.strip())
            return None
        return self.classes[self.spellings.get(label, label)]


@dataclass(frozen=True, slots=True)
class Grouping:
    """A named way to form classes from labels.

    Attributes
    ----------
    name : str
    classes : tuple of str
        In the order of their numbers. Empty for `raw` until `over` has seen the labels.
    about : str
        One sentence.
    datasets : mapping of str to LabelMap
        By the data set's name.
    names : mapping of str to str
        Every other name of a data set, folded, to its name.
    files : mapping of str to str
        The file of each data set that classes.toml does not hold, for messages.
    """

    name: str
    classes: tuple[str, ...]
    about: str = ""
    datasets: Mapping[str, LabelMap] = field(default_factory=dict, repr=False)
    names: Mapping[str, str] = field(default_factory=dict, repr=False)
    files: Mapping[str, str] = field(default_factory=dict, repr=False)

    def of(self, dataset: str, label: str) -> str | None:
        """Class of a label, or None where the grouping leaves it out by design.

        Parameters
        ----------
        dataset : str
            Name of the data set; capitals and blanks at the ends do not count.
        label : str
            Raw label; likewise.

        Raises
        ------
        ConfigError
            The grouping does not know the data set, or the data set does not know the label.

        Examples
        --------
        >>> from flowkit.labels.groupings import grouping
        >>> grouping("3-class").of("casme2", "Repression")
        'negative'
        """
        folded = fold(label)
        if self.name == RAW:
            return self._raw(dataset, folded)
        labels = self.datasets.get(self.name_of(dataset))
        if labels is None:
            raise ConfigError(
                f"classes {self.name}: data set must be one of {enumerated(self.datasets)}; got {dataset!r}."
                f"{near(fold(dataset), {**self.names, **dict.fromkeys(self.datasets)})} Choose another grouping (raw takes any "
                f"data set), or add it to {self.files.get(self.name_of(dataset), FILE)}."
            )
        try:
            return labels.find(folded)
        except KeyError:
            raise ConfigError(
                f"classes {self.name}: label of {self.name_of(dataset)} must be one of {enumerated(labels.classes)}; got "
                f"{label!r}.{near(folded, {**labels.spellings, **labels.classes})} Correct the manifest, or add it to "
                f"{self.files.get(self.name_of(dataset), FILE)}."
            ) from None

    def over(self, clips: Iterable[tuple[str, str]]) -> Grouping:
        """The same grouping with its classes known: of `raw`, the labels found, in sorted order; any other as it is.

        Parameters
        ----------
        clips : iterable of (str, str)
            Data set and label of each clip.

        Raises
        ------
        ConfigError
        """
        if self.name != RAW or self.classes:
            return self
        found = {self._raw(dataset, fold(label)) for dataset, label in clips}
        return Grouping(RAW, tuple(sorted(found)), self.about)

    def _raw(self, dataset: str, folded: str) -> str:
        if not folded or (self.classes and folded not in self.classes):
            expected = f"one of {enumerated(self.classes)}" if self.classes else "a word"
            raise ConfigError(
                f"classes {RAW}: label of {dataset} must be {expected}; got {folded!r}.{near(folded, self.classes)} "
                "Correct the manifest."
            )
        return folded

    def name_of(self, dataset: str) -> str:
        """Return the name of a data set however it is written; one that is not known stays, folded."""
        folded = fold(dataset)
        return self.names.get(folded, folded)
