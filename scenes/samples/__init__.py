"""Sample scenes with known geometry: worlds, a ray tracer, textures, points as SfM would find them."""
