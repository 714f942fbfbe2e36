"""interop: the protocols that others speak, over the mesh's own contracts.

OpenAI's protocol comes in as opaque bodies (`google.api.HttpBody`), so that Envoy stays the only
HTTP server. `domain` reads and writes that protocol, `service` asks llm and agents over their
contracts (`ports`). What is kept here are responses of models; those of agents are their runs.
"""
