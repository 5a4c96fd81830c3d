"""Known data sets: where their files lie, what they say, what is wrong in them."""
