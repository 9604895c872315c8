"""A run's folder: who may write there, its checkpoints, what is in them."""
