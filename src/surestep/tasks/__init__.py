"""Worked tasks, on the public names only."""
