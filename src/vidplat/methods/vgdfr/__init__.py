"""VGDFR (arXiv 2504.12259): quiet passages are merged, fewer latent frames go on."""
