"""Milliseconds per step of the token methods on a GPU, beside the work that they leave; see
`__main__`."""
