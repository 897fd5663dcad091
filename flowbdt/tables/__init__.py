"""Tables of events: columns, conditions and weights; files in and out; columns to latent points and back."""
