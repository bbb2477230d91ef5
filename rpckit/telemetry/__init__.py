"""What is told about calls: one log line each, metrics and spans; all of it optional and cheap when off."""
