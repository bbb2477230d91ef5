"""What every call passes before its handler runs; ``call_chain`` puts it together."""

from rpckit.interceptors.admission import AdmissionLimits, Drain
from rpckit.interceptors.authenticate import Authenticator
from rpckit.interceptors.chain import CallChain, call_chain
from rpckit.interceptors.deadline import Deadlines
from rpckit.interceptors.tenant import Tenants
from rpckit.layer import OPEN_SERVICES, Call, Layer

__all__ = [
    "OPEN_SERVICES",
    "AdmissionLimits",
    "Authenticator",
    "Call",
    "CallChain",
    "Deadlines",
    "Drain",
    "Layer",
    "Tenants",
    "call_chain",
]
