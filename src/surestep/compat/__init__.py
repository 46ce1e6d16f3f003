"""Running what was written for the original."""
