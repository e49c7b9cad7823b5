"""The stage: makes ready where an agent works, starts it, and says what it changed. Runs inside the run's own tree. Stdlib only."""
