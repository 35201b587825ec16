"""How a video may be made with less work: a folder for each method, and the seams that they share.

`kinds` says what a method answers for itself, `table` lists the kinds, `language` turns text into
choices and back, `work` and `frames` count with the answers. In a method's folder `words` holds its
kind, which is all that a plan must know of it; `on_model` what it does on a loaded model. Torch and
OpenCV are loaded by `on_model`, `seams`, `filling.frames`, `filling.flow` and `solver` alone.
"""
