"""What listens to the run: flow, progress, early stopping and others."""
