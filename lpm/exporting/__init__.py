"""What lpm-export makes of a model before it writes it: levels of detail, meshes."""
