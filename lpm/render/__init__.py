"""From Gaussians to pictures: the rasterizer and its backends, the sky, the loss."""
