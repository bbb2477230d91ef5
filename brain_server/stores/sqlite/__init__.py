"""One SQLite file a brain: the outbox and working memory, on one fsync."""
