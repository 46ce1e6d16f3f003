"""Where the numbers of a run are written: one tracker a file."""
