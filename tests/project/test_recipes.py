"""The commands of docs/recipes.md, run as they stand there on made-up data sets in the real ones' layouts."""

from __future__ import annotations

import io
import json
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "datasets"))
import made_up

from flowkit import cli as flowkit_cli
from flowkit.synthetic.scenes import SynthConfig, scenes
from fmanet import cli as fmanet_cli

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
RECIPES = dict(re.findall(r"^## (.+?)\n.*?^```sh\n(.+?)^```", TEXT, flags=re.MULTILINE | re.DOTALL))
QUICK_RECIPES = 1
"""The first one, which `make test` runs; `make test-slow` runs the others."""
SMALLER = {
    "extract": ("--size", "64", "--workers", "1"),
    "train": ("--workers", "1", "--epochs", "1", "--set", "network.width=4", "--set", "network.grid=4"),
}
"""What a made-up set may do without, at the end of a command; `--seeds 5` becomes 1."""
PROGRAMS = {"flowkit": flowkit_cli.main, "fmanet": fmanet_cli.main}
FRAMES = 9
"""Of each clip; the apex is the middle one."""


def rows(subjects: Sequence[str], labels: Sequence[str]) -> Iterator[tuple[str, str, int]]:
    """Subject, label and a number for every clip."""
    number = 0
    for subject in subjects:
        for label in labels:
            number += 1
            yield subject, label, number


def casme2(root: Path) -> None:
    labels = ("happiness", "surprise", "disgust", "repression", "others")
    units = {"happiness": "6+12", "disgust": "4+9", "others": "4+R12"}
    lines = [
        (subject, f"EP{number:02d}_01f", None, 46, 50, 54, None, units.get(label, "14"), label)
        for subject, label, number in rows(("01", "02", "03"), labels)
    ]
    made_up.casme2(root, "CASME2_RAW_selected", rows=lines)


def samm(root: Path) -> None:
    labels = ("Happiness", "Anger", "Contempt", "Surprise", "Other")
    lines = [
        (subject, f"{subject}_{number}_9", 5562, 5566, 5570, "12", label, 1)
        for subject, label, number in rows(("006", "007", "009"), labels)
    ]
    made_up.samm(root, rows=lines)


def smic(root: Path) -> None:
    for subject, label, number in rows(("s1", "s2", "s3"), ("negative", "positive", "surprise")):
        short = {"negative": "ne", "positive": "po", "surprise": "sur"}[label]
        folder = root / "HS" / subject / "micro" / label / f"{subject}_{short}_{number:02d}"
        made_up.frames(folder, range(12345, 12345 + FRAMES), "image{:06d}.bmp")


def mmew(root: Path) -> None:
    header = (
        "Subject",
        "Filename",
        "OnsetFrame",
        "ApexFrame",
        "OffsetFrame",
        "Action Units",
        "Estimated Emotion",
        "remarks",
    )
    labels = ("happiness", "surprise", "disgust", "others", "anger", "fear", "sadness")
    lines = [
        (subject, f"{subject}-{number:02d}-001", 1, 5, 9, "12", label, None)
        for subject, label, number in rows(("S03", "S05", "S08"), labels)
    ]
    made_up.workbook(root / "MMEW_Micro_Exp.xlsx", {"Sheet1": [header, *lines]})
    for _, clip, *_, label, _ in lines:
        place = {"others": "repression"}.get(str(label), str(label))
        made_up.frames(root / "Micro_Expression" / place / str(clip), range(1, FRAMES + 1), "{}.jpg")


SETS = {"CASME2": casme2, "SAMM": samm, "SMIC": smic, "MMEW": mmew}


def faces() -> list[npt.NDArray[np.uint8]]:
    """A face from the onset to the apex and back, a frame each."""
    scene = next(scenes(SynthConfig(motion="bumps", subjects=1, classes=("smile",), noise=0, width=240, height=240)))
    still, apex = (scene.render(t).astype(np.float32) for t in (0, scene.draw.apex))
    shares = 1 - np.abs(np.linspace(-1, 1, FRAMES))
    return [np.rint(still + share * (apex - still)).astype(np.uint8) for share in shares]


def fill(root: Path) -> None:
    """Turn empty frames into faces, no two clips alike: what one file serves twice is taken for a leak."""
    frames, formats = faces(), {".jpg": "JPEG", ".bmp": "BMP"}
    folders = sorted({path.parent for path in root.rglob("*") if path.suffix in formats})
    for number, folder in enumerate(folders):
        files = sorted(folder.iterdir(), key=lambda path: int(re.findall("[0-9]+", path.stem)[-1]))
        assert len(files) == FRAMES, folder
        for path, frame in zip(files, frames, strict=True):
            marked = frame.copy()
            marked[:16, :16] = number % 256
            marked[:16, 16:32] = 255 * (number // 256)
            stream = io.BytesIO()
            Image.fromarray(marked).save(stream, formats[path.suffix])
            path.write_bytes(stream.getvalue())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds every set of the recipes."""
    folder = tmp_path_factory.mktemp("recipes") / "data"
    for name, make in SETS.items():
        make(folder / name)
    fill(folder)
    return folder


def commands(recipe: str, data: Path) -> Iterator[list[str]]:
    """The recipe's commands, on these folders and small enough for a test."""
    for line in recipe.strip().splitlines():
        words = shlex.split(line.replace("/data", str(data)).replace("--seeds 5", "--seeds 1"))
        yield [*words, *SMALLER.get(words[1], ())]


def test_there_is_a_recipe_for_each_protocol_that_papers_report_and_for_units() -> None:
    assert len(RECIPES) == 6
    assert TEXT.count("```sh") == 6
    classes = set(re.findall(r"--classes (\S+)", "".join(RECIPES.values())))
    assert classes == {"casme2-5", "samm-5", "3-class", "mmew-4", "mmew-6", "action-units"}


@pytest.mark.parametrize(
    "title",
    [
        pytest.param(title, marks=() if number < QUICK_RECIPES else pytest.mark.slow)
        for number, title in enumerate(RECIPES)
    ],
)
def test_a_recipe_leads_from_the_folder_to_the_table(
    title: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = None
    for program, *words in commands(RECIPES[title], data):
        done = CliRunner().invoke(PROGRAMS[program], words)
        incomplete = "megc2019" in words  # a made-up composite is not the 442 clips, which is said
        assert done.exit_code == int(incomplete), f"{words}\n{done.output}\n{done.exception!r}"
        assert ("the composite must have 145 clips; got 12" in done.stderr) == incomplete
    assert done is not None
    assert "average over seeds" in done.stdout
    for run in tmp_path.glob("*-units"):
        scores = json.loads((run / "scores.json").read_text())
        assert (scores["classes"], scores["clips"]) == (["AU4", "AU12", "AU14"], 15)
    for run in tmp_path.glob("*-run*"):
        scores = json.loads((run / "scores.json").read_text())
        assert scores["clips"] == sum(map(sum, scores["seed_average"]["matrix"]))
        assert len(scores["subjects"]) == (9 if "megc" in run.name else 3)
        assert (run / "report.html").stat().st_size > 10_000
