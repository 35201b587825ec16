"""What trains few-step and sparse students of any model."""
