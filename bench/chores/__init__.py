"""The tasks that the workers of a comparison execute: ours and those of the peers, each in its own environment."""
