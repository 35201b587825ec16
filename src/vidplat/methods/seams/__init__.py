"""What methods touch inside a model: tokens, passes, attention, frame times, the solver."""
