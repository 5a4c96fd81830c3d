"""`flowkit doctor`: what is installed, what is missing, and what to do next; also `python -m flowkit.doctor`."""
