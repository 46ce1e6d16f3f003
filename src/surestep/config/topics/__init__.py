"""One topic of the arguments a file: its fields, their help and their checks."""
