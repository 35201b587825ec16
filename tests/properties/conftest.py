"""Generated tests: a time limit per example says more about the machine's other work than about the code.

`pytest --hypothesis-profile=thorough tests/properties` looks ten times harder.
"""

from hypothesis import settings

settings.register_profile("quick", deadline=None, max_examples=40)
settings.register_profile("thorough", deadline=None, max_examples=400)
if settings.get_current_profile_name() == "default":
    settings.load_profile("quick")
