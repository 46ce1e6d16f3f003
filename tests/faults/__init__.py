"""Faults of the disk and of the process, put where they hurt: what survives them, and what is said."""
