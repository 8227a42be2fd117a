"""A model on a GPU: what a cancel, a crash and a dead host do to it, and what its data costs."""
