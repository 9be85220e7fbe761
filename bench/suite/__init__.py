"""The instrument behind scripts/bench: benchmarks, each beside its reference in the same run."""
