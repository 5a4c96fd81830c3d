"""Every movement of the face in long recordings: found, told apart, and scored as the field scores."""
