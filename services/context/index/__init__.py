"""The index: what is kept in it, and the two that can keep it."""
