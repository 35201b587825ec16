"""Efficient-vDiT (arXiv 2502.06155): frames attend to themselves and to reference frames."""
