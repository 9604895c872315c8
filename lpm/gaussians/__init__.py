"""What a model is, and how it is edited: parameters, motion, harmonics, edits that rows can be followed through."""
