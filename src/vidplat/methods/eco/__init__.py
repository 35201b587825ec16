"""EcoVideo (arXiv 2606.30557): some latent frames are finished, the others filled in."""
