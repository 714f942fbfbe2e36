"""The providers, each an implementation of `services.llm.domain.Provider`."""
