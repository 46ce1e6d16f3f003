"""Before, during and after a run: what to change and why."""
