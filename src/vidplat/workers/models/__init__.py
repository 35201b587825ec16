"""Model families, each brought to one normal form.

`catalogue.py` finds models and describes them from their config files, `limits.py` says which sizes
they can make (both without torch), `family.py` is the normal form, `wan.py` the one family so far.
"""
