"""The brain's own file: outbox entries and working memory, on one fsync."""
