"""Training of few-step and sparse students of any model, and prompt fit, the exact metric of the
synthetic world.
"""
