"""From an aligned face to dual-phase flow and MM-COF; the spotting of the apex."""
