"""Transports of one's own."""
