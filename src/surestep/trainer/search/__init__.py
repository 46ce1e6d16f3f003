"""Search for arguments: many short runs of one trainer, each with values of its own. `backend` says how it is cut."""
