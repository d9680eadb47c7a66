"""Turning a float net into an INT8 one, and judging the result."""
