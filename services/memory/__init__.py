"""memory: what agents know, with a history like that of code.

Every change of a space is a commit; any commit can be read as cheaply as the newest.
"""
