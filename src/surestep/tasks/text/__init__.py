"""Text classification: sentences in, classes out."""
