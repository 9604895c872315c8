"""Edits of what was trained, or of any file of Gaussians: lpm-edit."""
