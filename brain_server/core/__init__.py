"""What the brain does with a call, free of wire formats and drivers."""
