"""What people look at: panels in the viewer, stand-alone viewer, replay."""
