"""The way to the memory server: the breaker, the outbox, and the delivery of what the outbox holds."""
