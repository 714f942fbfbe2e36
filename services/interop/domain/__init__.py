"""OpenAI's protocol as values: what a request asks, and how an answer is written."""
