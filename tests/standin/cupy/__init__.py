"""CuPy as `sitecustomize.py` beside this folder promises it: the stand-in of cuda_on_cpu/, for a whole process."""

import json
import os

import cupy_standin

cupy_standin.install(**json.loads(os.environ["FLOWKIT_STANDIN"]))
