"""Small adapters that the guide speaks of."""
