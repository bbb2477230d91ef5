"""Server plumbing that both servers share; it knows calls, callers and tenants, and no word of the domain.

Read in the order a call passes: ``metadata`` (what the caller sent) → ``interceptors`` (the chain) → ``call`` (what a
handler may know of its call) → ``status`` (errors on the wire). Around it: ``server`` and ``channel`` (the two ends of
a connection), ``health``, ``lifecycle``, ``ops`` and ``telemetry``.
"""
