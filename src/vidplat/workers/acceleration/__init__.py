"""Methods that make a video with less work: one file each, and the seams they touch.

`method.py` says what a method is, `table.py` maps names to files and installs them around a loaded model.
`attention.py` and `tokens.py` are the two seams inside a transformer; `layouts/` tells them where a family keeps its
blocks, so no method knows a model by name. Loading this room loads torch and diffusers.
"""
