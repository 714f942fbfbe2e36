"""llm's use cases."""
