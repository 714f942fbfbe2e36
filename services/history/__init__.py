"""history: the messages of sessions, and what of them fits a model's window.

A message is kept under an id that whoever appends it chose, so that appending may be repeated.
"""
