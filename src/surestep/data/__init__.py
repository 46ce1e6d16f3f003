"""From a dataset to batches: loaders, samplers, position, columns, collators."""
