"""What llm is about, its rules and its errors."""
