"""The face: Trainer and what puts its parts together."""
