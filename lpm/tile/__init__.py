"""Scenes larger than one memory: cut into tiles that overlap, trained one by one, merged without seams."""
