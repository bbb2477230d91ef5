"""The brain's services: each method converts, calls the core, converts back."""
