"""What can be wrong with a brain's file, told to its operator at start."""


class BrainFileError(Exception):
    """The brain's file cannot be used; the message says why and what to do."""
