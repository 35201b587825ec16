"""Models that make a video block by block: their jobs, their stream, their memory."""
