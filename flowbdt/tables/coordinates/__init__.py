"""Columns that are learned in place of those of a table, and the way back."""
