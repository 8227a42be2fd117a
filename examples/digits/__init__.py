"""A pool of two workers, each holding a classifier of scanned digits."""
