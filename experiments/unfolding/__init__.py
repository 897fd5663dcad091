"""Particle level from detector level: generative, binned and reweighting methods side by side."""
