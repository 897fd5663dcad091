"""Regressors that learn one time step each."""
