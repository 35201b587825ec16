"""The quality-cost picture of every method on one loaded model, and the search for masks."""
