"""Heterogeneous step allocation (arXiv 2605.06892): tokens that hardly change take fewer steps."""
