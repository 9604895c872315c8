"""Writers and readers of files that other programs open."""
