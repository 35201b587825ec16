"""Thousands of text-to-video prompts, rendered by a deadline, on whatever machines you have."""

__version__ = "0.1.0"
