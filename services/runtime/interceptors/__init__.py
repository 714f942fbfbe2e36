"""What happens around every RPC: telemetry, errors, deadline, auth, validation, in this order."""
