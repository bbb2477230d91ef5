"""Proto to domain and back; parsing a request here *is* its validation.

Every ``…_from_pb`` takes a :class:`~soma_contract.convert.checks.Checks` and a field path, notes
each violation and goes on, so that a caller learns of all of them at once.
"""
