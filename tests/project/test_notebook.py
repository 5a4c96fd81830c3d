"""The notebook does what it says on this machine, and what is committed of it is small and tidy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

nbformat = pytest.importorskip("nbformat", reason="nbformat is in the extra dev")
pytest.importorskip("nbclient", reason="nbclient is in the extra dev")
pytest.importorskip("ipykernel", reason="ipykernel is in the extra dev")

NOTEBOOK = Path(__file__).parents[2] / "examples" / "flow_in_five_minutes.ipynb"
EXECUTE = """
import sys
import nbclient, nbformat
from traitlets.config import Config

notebook = nbformat.read(sys.argv[1], as_version=4)
save = f"np.savez({sys.argv[2]!r}, flow=flow, combined=combined, motion=truth.flow, inside=inside)"
notebook.cells.append(nbformat.v4.new_code_cell(save))
private = Config({"KernelManager": {"transport": "ipc"}})  # no port of this machine is opened
nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", config=private).execute()
nbformat.write(notebook, sys.argv[3])
"""
"""Run in a process of its own: nbclient leaves sockets to the garbage collector, which warns."""


def outputs(notebook: Any) -> list[Any]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def test_the_notebook_recovers_the_motion_that_it_made(tmp_path: Path) -> None:
    arrays_file, executed = tmp_path / "arrays.npz", tmp_path / "executed.ipynb"
    paths = os.pathsep.join(str(Path(path).resolve()) for path in sys.path if path)
    environment = {"PYTHONPATH": paths, "JUPYTER_RUNTIME_DIR": str(tmp_path), "IPYTHONDIR": str(tmp_path / "ipython")}
    done = subprocess.run(
        [sys.executable, "-c", EXECUTE, NOTEBOOK, arrays_file, executed],
        env={**os.environ, **environment},
        cwd=tmp_path,  # where the kernel puts its sockets
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    arrays = np.load(arrays_file)
    rise, fall = arrays["flow"]
    motion, inside, (cos, sin, magnitude) = arrays["motion"], arrays["inside"], arrays["combined"]
    for found, true in zip((rise, fall), motion, strict=True):
        assert np.hypot(*(found - true))[inside].mean() < 0.4 * np.hypot(*true)[inside].mean()
    assert magnitude.min() >= 0
    assert 0.9 < magnitude[inside].max() <= 1
    strong = inside & (magnitude > 0.5)
    agreement = (cos * motion[0, 0] + sin * motion[0, 1])[strong] / (magnitude * np.hypot(*motion[0]))[strong]
    assert np.median(agreement) > 0.9
    pictures = [
        output for output in outputs(nbformat.read(executed, as_version=4)) if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 3


def test_what_is_committed_was_run_in_order_and_carries_nothing_volatile() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert all(not cell.metadata for cell in notebook.cells)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert {output.output_type for output in outputs(notebook)} <= {"stream", "display_data"}
    assert {output.name for output in outputs(notebook) if output.output_type == "stream"} == {"stdout"}
    assert NOTEBOOK.stat().st_size < 300_000
