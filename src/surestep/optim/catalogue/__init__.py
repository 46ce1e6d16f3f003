"""The optimizers by name: a table a file."""
