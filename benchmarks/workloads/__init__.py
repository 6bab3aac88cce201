"""One file per system; each workload in that system's own best idiom."""
