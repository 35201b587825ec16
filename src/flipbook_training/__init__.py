"""What made the embedded model flipbook: a world, its clips, and networks trained on them."""
