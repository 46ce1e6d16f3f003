"""The heart: plan, state, tally, events, loop, evaluation."""
