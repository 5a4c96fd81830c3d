"""The walk over a data set: images by their parsed numbers, folders by the last parts of their path."""

from __future__ import annotations

from pathlib import Path

import made_up
import pytest

from flowkit.datasets.folders import FolderIndex, fold_path, gaps
from flowkit.errors import ManifestError
from flowkit.inputs.frame_numbers import numbered_images


def scan(root: Path) -> FolderIndex:
    return FolderIndex.scan(root, (".xlsx", ".csv"))


def paths(index: FolderIndex, tail: str) -> list[str]:
    return [folder.path for folder in index.find(tail)]


def test_the_index_knows_the_same_images_as_the_reader_of_frames(tmp_path: Path) -> None:
    names = ["img1.jpg", "reg_img46.JPG", "006_05562.png", "image17581039.bmp", "img_010.tif", ".img3.jpg", "notes.txt"]
    names += ["img.png", "7.mp4", "Thumbs.db"]
    for name in names:
        (tmp_path / name).write_bytes(b"")
    (folder,) = scan(tmp_path).folders
    assert folder.path == "."
    assert folder.numbers.tolist() == list(numbered_images(tmp_path)) == [1, 10, 46, 5562, 17581039]


def test_numbers_are_parsed_not_found_in_names(tmp_path: Path) -> None:
    made_up.frames(tmp_path / "clip", [460, 146], "reg_img{}.jpg")
    (folder,) = scan(tmp_path).folders
    assert [folder.holds(number) for number in (46, 146, 460)] == [0, 1, 1]


def test_order_and_gaps_are_those_of_the_numbers(tmp_path: Path) -> None:
    made_up.frames(tmp_path / "clip", [9, 10, 100, 8])
    (folder,) = scan(tmp_path).folders
    assert (folder.first, folder.last) == (8, 100)
    assert (gaps(folder, 8, 10), gaps(folder, 8, 12)) == (0, 2)


def test_two_images_with_one_number_are_counted(tmp_path: Path) -> None:
    made_up.frames(tmp_path / "clip", [1, 2])
    made_up.frames(tmp_path / "clip", [2], "reg{}.png")
    (folder,) = scan(tmp_path).folders
    assert [folder.holds(number) for number in (1, 2, 3)] == [1, 2, 0]


@pytest.mark.parametrize(
    ("one", "other"),
    [("S01/s01_ne_01", "s1/S1_NE_1"), ("sub01/EP02_01f", "sub1/ep2_1f"), ("SMIC-HS-E", "smic_hs_e"), ("a/./b", "a/b")],
)
def test_names_that_mean_the_same_are_the_same(one: str, other: str) -> None:
    assert fold_path(one) == fold_path(other)


@pytest.mark.parametrize(
    ("one", "other"), [("1.05", "1.5"), ("s1", "s10"), ("EP02_01f", "EP02_01"), ("a/b", "b"), ("100", "1"), ("s0", "s")]
)
def test_names_that_do_not_are_not(one: str, other: str) -> None:
    assert fold_path(one) != fold_path(other)


def test_folders_are_found_by_their_last_parts_the_root_among_them(tmp_path: Path) -> None:
    root = tmp_path / "sub01"
    made_up.frames(root / "EP02_01f", [1])
    made_up.frames(root / "EP02_010f", [1])
    made_up.frames(root / "deep" / "sub02" / "EP02_01f", [1])
    index = scan(root)
    assert paths(index, "sub01/ep02_01F") == ["EP02_01f"]
    assert paths(index, "EP02_01f") == ["EP02_01f", "deep/sub02/EP02_01f"]
    assert paths(index, "./EP02_01f") == ["EP02_01f"]
    assert paths(index.within("deep"), "EP02_01f") == ["deep/sub02/EP02_01f"]
    assert paths(index, "sub03/EP02_01f") == []


def test_hidden_folders_and_links_to_folders_are_left_alone(tmp_path: Path) -> None:
    made_up.frames(tmp_path / ".hidden" / "clip", [1])
    made_up.frames(tmp_path / "clip", [1])
    (tmp_path / "link").symlink_to(tmp_path / "clip")
    (tmp_path / "loop").symlink_to(tmp_path)
    index = scan(tmp_path)
    assert [folder.path for folder in index.folders] == ["clip"]
    assert index.links == 2


def test_empty_folders_and_spreadsheets_are_known(tmp_path: Path) -> None:
    (tmp_path / "s18" / "s18_sur_03").mkdir(parents=True)
    for name in ("b.XLSX", "a.csv", "~$b.xlsx", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    index = scan(tmp_path)
    assert index.empty == ["s18/s18_sur_03"]
    assert index.files == ["a.csv", "b.XLSX"]


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.write_bytes(b"")], ids=["nothing", "a file"])
def test_a_root_that_is_no_folder_is_refused(tmp_path: Path, make) -> None:
    make(tmp_path / "root")
    with pytest.raises(ManifestError, match="ROOT must be the folder of the data set; got No"):
        scan(tmp_path / "root")
