"""Alignment: landmarks, registration, and the motion of the head told apart from the expression."""
