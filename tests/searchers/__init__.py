"""Searches with backends that need an environment of their own: make test-search."""
