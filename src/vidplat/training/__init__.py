"""The synthetic world, and the training of our own small models on it. Nothing but the command line imports this."""
