"""Programs to run and to read: `python -m examples.NAME`, from the root of the repository."""
