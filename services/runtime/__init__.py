"""The floor that every module stands on: serving, calling, storing, and the contract's policies.

It knows no module. What a module may use of it is in the names of these files.
"""
