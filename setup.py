"""What setup.cfg cannot say: links made of the one address that stands there."""

import configparser
import re
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent
config = configparser.ConfigParser(interpolation=None)
config.read(ROOT / "setup.cfg", encoding="utf-8")
URL = config["metadata"]["url"]


def absolute(match: "re.Match[str]") -> str:
    """Return a link of README with the repository's address before its path; pictures need the file itself."""
    bang, text, target = match.groups()
    return f"{bang}[{text}]({URL}/{'raw' if bang else 'blob'}/main/{target})"


setup(
    long_description=re.sub(
        r"(!?)\[([^]]*)\]\((?![a-z]+:|#)([^)]+)\)", absolute, (ROOT / "README.md").read_text(encoding="utf-8")
    ),
    long_description_content_type="text/markdown",
    project_urls={
        "Source": URL,
        "Documentation": f"{URL}/tree/main/docs",
        "Changelog": f"{URL}/blob/main/CHANGELOG.md",
        "Issues": f"{URL}/issues",
    },
)
