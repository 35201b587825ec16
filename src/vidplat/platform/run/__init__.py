"""One batch run: its turns, what events mean, endings, promise and score."""
