"""Prompt rows and input videos become jobs, or one error that names every bad row."""
