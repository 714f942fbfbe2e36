"""How llm's configuration and ledger are kept."""

from services.llm.store import answers, budgets, calls, providers, routes, usage

__all__ = ["answers", "budgets", "calls", "providers", "routes", "usage"]
