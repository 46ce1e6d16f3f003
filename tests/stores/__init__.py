"""Runs whose remote folder is a real object store on this machine: `make test-stores` installs what that needs."""
