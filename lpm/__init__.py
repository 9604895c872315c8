"""3D and 4D Gaussian Splatting with localized point management (arXiv 2406.04251).

Importing this package is light: it neither compiles, nor needs a GPU, nor imports nerfstudio.
"""

__version__ = "0.1.0"
