"""What a training run is made of: the loop, the optimizer step, checkpoints, limits."""
