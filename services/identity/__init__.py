"""identity: who calls, for which tenant, and what they may do.

It keeps accounts, logins, API keys, the keys that sign tokens, and the audit log. Everybody else
verifies its tokens with the public keys it publishes and never asks it about a single call.
"""
