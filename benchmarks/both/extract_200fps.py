"""As `extract`, of folders that hold every frame of a recording at 200 frames per second.

A version that averages the frames beside the key frames (`frames.average`) reads and registers four more frames for each; an older
one reads the key frames alone.
"""

from __future__ import annotations

from pathlib import Path

from _common import main, synthesise
from extract import list_few, run


def prepare(inputs: Path, people: int) -> None:
    """Render clips with all frames, and list the first few once more."""
    synthesise(inputs, people, "--fps", 200, "--rest-frames", 2, key_frames_only=False)
    list_few(inputs)


if __name__ == "__main__":
    main(prepare, run)
