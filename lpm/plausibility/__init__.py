"""Whether a scene's poses, lenses, points, masks and photos can be what they say, told from the photos themselves."""
