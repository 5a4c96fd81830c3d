"""The backend "numba-cuda": the same operations as plain Numba kernels. `operations` is what `backend.GpuOperations` describes.

tvl1.py, mmcof.py   the kernels, and which is launched when
blocks.py           what they share
device.py           memory, errors, other libraries' arrays
"""
