"""What comes in: the manifest with its clips, and the frames of images and videos, decoded and verified."""
