"""What goes in: scene layouts, sample scenes made on the spot."""
