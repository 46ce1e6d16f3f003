"""Going on from a checkpoint: which one, whether it may be, what was taken up from it, and who the run is."""
