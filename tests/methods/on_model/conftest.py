"""The tiny random pipelines of the workers' tests, for methods that are tried in a whole run."""

from tests.workers.conftest import tiny_unipc, tiny_wan

__all__ = ["tiny_unipc", "tiny_wan"]
