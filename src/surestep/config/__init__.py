"""Arguments: plain data, checked when they are made."""
