"""What photos with known cameras say about each other and about the scene: overlap, matches, depths, flow."""
