"""What runs a step: the wrapped model, precision and distribution."""
