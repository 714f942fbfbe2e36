"""interop's use cases."""
