"""The brain: working memory, breaker, outbox and context assembly in front of the memory server."""
