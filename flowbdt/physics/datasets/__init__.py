"""Data sets: their registry, the bundled sample, toys, public records and downloads."""
