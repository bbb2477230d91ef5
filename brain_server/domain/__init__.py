"""The brain's rules as pure functions and state machines: no I/O, time is an argument."""
