"""Twins of the brain's stores in memory, for tests in virtual time; one conformance suite holds both to one meaning."""
