"""`flowkit bench`: check every backend and OpenCV, then time them, and compare with an earlier result."""
