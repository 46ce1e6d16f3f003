"""Image classification: pictures in, classes out."""
