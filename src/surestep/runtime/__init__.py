"""The machine: ranks, devices, collectives, random generators."""
