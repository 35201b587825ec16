"""Videos begun in one host and finished in another, over a thin link; see `__main__`."""
