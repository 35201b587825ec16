"""Measuring a model's methods, masks and profiles for plans, as a verb of the command line asks."""
