"""Functions and classes that scripts take from the original's utilities: its names and signatures over our parts."""
