"""The use cases of identity, one file each: accounts, logins, API keys, signing, revocations."""
