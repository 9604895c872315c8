"""Panels and pictures in the viewer of a run that is training."""
