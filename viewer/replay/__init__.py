"""lpm-replay: what point management did in a run, event by event, as a page or one HTML file."""
