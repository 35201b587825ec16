"""Bringing workers up and carrying orders to them: in this process or on Ray."""
