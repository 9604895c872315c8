"""lpm-view: a page that shows Gaussians, drawn here and sent as pictures."""
