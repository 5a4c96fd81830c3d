"""The source distribution holds the whole project; the wheel built from it, installed outside the checkout, all that it needs."""

from __future__ import annotations

import configparser
import email.message
import email.parser
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
USE = """
import hashlib, pathlib, sys
import flowkit, flowkit_kernels, fmanet, flowkit.cli
from flowkit.synthetic.dataset import SynthConfig, synthesise
from flowkit.face.landmarks import FaceLandmarker
from flowkit.datasets.base import layout
from flowkit.datasets.corrections import corrections
assert all("site" in module.__file__ for module in (flowkit, flowkit_kernels, fmanet)), flowkit.__file__
synthesise(pathlib.Path("clips"), SynthConfig(motion="bumps", subjects=1, classes=("smile",), key_frames_only=True))
FaceLandmarker("").close()
assert layout("casme2")["title"] and corrections("casme2")
folder = pathlib.Path(flowkit.__file__).parent
from flowkit.checking.expected_counts import expectations
assert expectations()[0]["casme2"].editions
assert (folder / "assets" / "NOTICE").is_file() and (folder / "py.typed").is_file()
print(*sorted(path.name for path in (pathlib.Path(flowkit_kernels.__file__).parent / "cuda").iterdir() if path.is_file()))
"""


PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
SDIST = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"


@dataclass(frozen=True)
class Built:
    """What is published, and the files it was made of."""

    tracked: frozenset[str]
    sdist: Path
    wheel: Path

    @property
    def metadata(self) -> email.message.Message:
        with zipfile.ZipFile(self.wheel) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
            return email.parser.Parser().parsestr(archive.read(name).decode())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("built")
    source = folder / "source"
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    found = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True)
    tracked = {name for name in found.stdout.splitlines() if (ROOT / name).is_file()}
    for name in tracked:  # a copy: building writes into the folder it builds from
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    dist = folder / "dist"
    dist.mkdir()
    subprocess.run([sys.executable, "-c", SDIST, dist], cwd=source, check=True, stdout=subprocess.DEVNULL)
    (sdist,) = dist.glob("*.tar.gz")
    subprocess.run([*PIP, "wheel", "--no-deps", "--no-build-isolation", "-w", dist, sdist], check=True)
    (wheel,) = dist.glob("flowkit_mer-*.whl")
    return Built(frozenset(tracked), sdist, wheel)


def test_the_wheel_works_without_the_checkout(built: Built, tmp_path: Path) -> None:
    site = tmp_path / "site"
    subprocess.run([*PIP, "install", "--no-deps", "--target", site, built.wheel], check=True)
    environment = {**os.environ, "PYTHONPATH": str(site)}
    used = subprocess.run(
        [sys.executable, "-P", "-c", USE], cwd=tmp_path, env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    sources = {path.name for path in (ROOT / "kernels" / "flowkit_kernels" / "cuda").iterdir() if path.is_file()}
    assert {"common.cuh", "iterate.cu", "device.py"} <= sources
    assert set(used.stdout.splitlines()[-1].split()) == sources


def test_the_source_distribution_holds_all_that_git_tracks(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        files = {member.name.partition("/")[2] for member in archive if member.isfile()}
    assert built.tracked <= files
    made = {name for name in files if name == "PKG-INFO" or name.startswith("flowkit_mer.egg-info/")}
    assert files - made <= built.tracked


def test_the_address_of_the_repository_stands_in_one_place_and_all_links_are_made_of_it(built: Built) -> None:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    url = parser["metadata"]["url"]
    text = {name: (ROOT / name).read_bytes() for name in built.tracked}
    assert [name for name, content in text.items() if url.encode() in content] == ["setup.cfg"]
    links = dict(line.split(", ") for line in built.metadata.get_all("Project-URL") or [])
    assert {"Source", "Documentation", "Changelog", "Issues"} <= set(links)
    assert all(link.startswith(url) for link in links.values())


def test_the_picture_and_the_links_of_readme_show_on_an_index_page(built: Built) -> None:
    description = str(built.metadata.get_payload())
    targets = re.findall(r"\]\(([^)]+)\)", description)
    assert len(targets) > 10
    assert all(re.match(r"https://|mailto:|#", target) for target in targets), targets
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", description)
    assert [picture.rpartition("/raw/main/")[2] for picture in pictures] == ["docs/flow.png"]
    for target in targets:
        name = re.sub(r"^.*/(?:raw|blob)/main/", "", target).partition("#")[0]
        if name != target.partition("#")[0]:
            assert (ROOT / name).exists(), f"README links to {name}, which is not there"
