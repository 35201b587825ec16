"""Passes run at chosen steps, dense at first and thin at the end (ours)."""
