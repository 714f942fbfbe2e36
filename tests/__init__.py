"""The tests, in the same shape as what they test."""
