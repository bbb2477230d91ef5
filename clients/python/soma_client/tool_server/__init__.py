"""Soma's memory as tools that a model calls, over the Model Context Protocol.

tools     the six tools and what they tell the model about themselves
answers   what they return
refusals  an error in words that say what to do
callers   whose memory a call works on
serving   the server over stdio and streamable HTTP

Needs the extra ``soma-memory[mcp]``.
"""
