"""Plexus: the modules, the floor they stand on, and what composes them."""
