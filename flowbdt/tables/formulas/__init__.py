"""Expressions over columns and particles, and the exact relations that are written in them."""
