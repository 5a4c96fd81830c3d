"""The backend "cuda": CUDA C through CuPy. `operations` is what `backend.GpuOperations` describes.

*.cu, common.cuh   the kernels; the tests also run them on the CPU
tiling.py          how a level is cut into tiles
solver.py          which kernel is launched when; knows nothing of CuPy
device.py          a GPU through CuPy
batches.py         chunks, streams, graphs
"""
