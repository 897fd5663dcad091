"""What training rows suggest and nobody declared: relations, cuts, settings."""
