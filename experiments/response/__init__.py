"""A detector's response by a chain of stages, beside smearing, a network and one flow."""
