"""The other modules, behind the protocols of `ports`."""
