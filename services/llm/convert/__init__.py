"""The contract's messages to this module's values and back."""
