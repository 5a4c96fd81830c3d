"""Where the frames of each clip are; frames in several places are a question to the user, always."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence

from flowkit.datasets.base import Annotation
from flowkit.datasets.folders import Folder, layout_of, several_layouts, some_folders, what_to_do
from flowkit.datasets.source import Source
from flowkit.errors import ManifestError


def locate(source: Source, annotations: Sequence[Annotation]) -> tuple[dict[str, Folder], Counter[str]]:
    """Return the folder of each clip that has one, by its id, and how many clips each layout holds.

    Parameters
    ----------
    source : Source
    annotations : sequence of Annotation

    Raises
    ------
    ManifestError
        Clips have frames in several folders, or none has any.
    """
    places: dict[str, Folder] = {}
    layouts: Counter[str] = Counter()
    several: Counter[str] = Counter()
    example: Sequence[str] = ()
    for annotation in annotations:
        found = _places(source, annotation)
        if len(found) > 1:
            several.update(set(found.values()))
            example = example or sorted(found)
        for path, layout in found.items():
            layouts[layout] += 1
            places[annotation.clip_id] = source.folders.at(path)
    if several:
        raise several_layouts(source.root, several, example)
    if annotations and not places:
        _refuse_other_frames(source)
        patterns = " or ".join(source.layout["folders"])
        raise ManifestError(
            f"{source.root / (source.frames or '')}: frames must be in folders such as {patterns}, for instance "
            f"{annotations[0].folders[0]}; got {some_folders(source.folders)}. {what_to_do(source.folders)}"
        )
    return places, layouts


def _refuse_other_frames(source: Source) -> None:
    """Raise if the frames that are there are those of another set.

    Raises
    ------
    ManifestError
    """
    for part, name in source.layout.get("frames_of", {}).items():
        found = [folder.path for folder in source.folders.folders if part in folder.path.casefold()]
        if found:
            raise ManifestError(
                f"{source.root}: frames must be those of {source.layout['title']}; got those of another set, such as {found[0]}. "
                f"Write: flowkit manifest {name} {shlex.quote(str(source.root))} --out FILE"
            )


def _places(source: Source, annotation: Annotation) -> dict[str, str]:
    """The layout of each folder that may hold the frames of a clip."""
    found: dict[str, str] = {}
    for tail in annotation.folders:
        for folder in source.find(tail):
            found.setdefault(folder.path, annotation.layout or layout_of(folder, tail))
    if len(found) > 1 and source.frames is not None:
        chosen = {path: layout for path, layout in found.items() if layout == source.frames}
        return chosen or found
    return found
