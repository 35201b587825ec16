"""vidplat renders thousands of text-to-video prompts by a deadline, on whatever machines its user
has.
"""

__version__ = "0.1.0"
