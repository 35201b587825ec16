"""LIPAR (arXiv 2603.05811): tokens that repeat their past in an edited video do not run."""
