"""What made the embedded model flipbook: a world, an autoencoder, a denoiser, texts. Not shipped."""
