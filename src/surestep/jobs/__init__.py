"""A whole job declared in one file."""
