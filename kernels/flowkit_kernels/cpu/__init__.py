"""The backend "cpu", and the other compiled loops of the CPU. `operations` is what `backend.Operations` describes.

Importing this package imports nothing: image registration compiles its loops without those of the backend.
"""
