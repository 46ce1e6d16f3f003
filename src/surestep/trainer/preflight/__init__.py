"""A look at a run before it begins: a step, an evaluation batch, a save and a load, all of it undone."""
