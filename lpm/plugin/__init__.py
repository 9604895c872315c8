"""The nerfstudio method `lpm-splat`: everything that imports nerfstudio, and only that."""
