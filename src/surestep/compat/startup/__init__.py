"""A folder that `surestep exec` puts on PYTHONPATH, so that every Python that a script starts begins in it."""
