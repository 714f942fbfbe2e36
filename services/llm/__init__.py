"""llm: language models behind one contract.

A provider serves models: `providers/offline.py` is built in and needs nothing,
`providers/openai_compatible.py` calls a server that speaks OpenAI's protocol. The service picks the
provider by the model's name and keeps the grammar of the stream, whatever a provider does.
"""
