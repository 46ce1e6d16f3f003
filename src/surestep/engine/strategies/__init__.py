"""How a model is spread over devices: one way a file."""
