"""The gateway: its renderer as a function, and the real Envoy in front of a scripted backend."""
