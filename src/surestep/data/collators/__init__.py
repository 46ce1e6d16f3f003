"""From a list of samples to a batch: one kind a file."""
