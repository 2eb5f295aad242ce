"""What the workers of the comparison execute; each is run in its own environment."""
