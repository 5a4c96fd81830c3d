"""`flowkit check`: what is wrong or odd in a manifest, and how its counts differ from those of a known data set."""
