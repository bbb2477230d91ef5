"""Re-ranking models: an HTTP endpoint, or a cross-encoder on this machine."""
