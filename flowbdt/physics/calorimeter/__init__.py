"""Calorimeter showers: files, geometry, model and scores."""
