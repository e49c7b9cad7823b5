"""The keeper: owns the agents' process trees, outlives the daemon, and kills what has no lease. Stdlib only."""
