"""What can be done with context."""
