"""The sample scenes by name, with a line each; worlds.py and moving.py know what is in them."""

SAMPLES = {
    "room": "indoors: thin rails, a glass screen, a window onto a far background, changing exposure",
    "garden": "outdoors, from all around: a laid table, thin rails, houses and hills far behind",
    "street": "outdoors, 24 m long: houses on both sides, no photo shows more than a part; for lpm-tile",
}
"""Scenes that stand still."""
CLIPS = {
    "mover": "moves: a globe flies over a table",
    "occluder": "moves: a board slides in before the table and is gone again",
    "appearing": "moves: from the middle on a crate stands on the table",
    "flash": "moves: for a frame or two it is much brighter",
    "still": "moves: nothing does; for what must not be taken for motion",
}
"""Scenes that move."""
BY_SEED = {
    "yard": "outdoors: buildings around a yard, sky, few points far away; 15 to 30 views",
    "random": "a room, a yard, a table, a front, thin things, glass; exposure, poses and points, too",
    "random-moving": "moves: movers, surroundings, cameras, noise, calibration",
}
"""Scenes that each --seed draws anew."""
