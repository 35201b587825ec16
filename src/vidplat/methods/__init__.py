"""How a video may be made with less work: a folder for each method, and the seams that they share.

`language` turns text into choices and back, `table` lists the kinds, `work` says what share of a
plain run's work a choice leaves. In a method's folder `words` holds its name, parameters and what a
plan must know of it; `on_model` what it does on a loaded model. Only `on_model`, `seams`,
`filling.frames`, `filling.flow`, `installed` and `solver` load torch or OpenCV.
"""
