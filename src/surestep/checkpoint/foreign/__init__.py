"""Checkpoints that the original wrote: the one place where its pickled files are read, as data and nothing else."""
