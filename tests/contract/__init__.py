"""Tests of the contracts themselves, of the tools that read them, and of the house's rules."""
