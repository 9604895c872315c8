"""What a training run needs whoever drives it: Adam, bad steps, memory, signals, starting points from a file."""
