"""Tables of events: columns, conditions, weights; files in and out; columns to latent points."""
