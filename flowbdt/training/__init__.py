"""From a table to step models: plan, train each step, collect."""
