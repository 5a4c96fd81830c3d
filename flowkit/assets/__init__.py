"""Files that ship with the package: the face landmark model, and a face for made-up clips (origins in NOTICE)."""
