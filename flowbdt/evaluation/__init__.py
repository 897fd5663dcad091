"""Scores of generated events, with errors and floors, and pages about them."""
