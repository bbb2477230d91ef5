"""Which scope each rpc needs; both servers enforce the same table."""

from __future__ import annotations

from types import MappingProxyType

_READS = {
    "soma.memory.v1.MemoryService": ("Get", "BatchGet", "List", "History", "Recall"),
    "soma.memory.v1.WatchService": ("Watch",),
    "soma.memory.v1.WorkingMemoryService": ("ListItems",),
    "soma.memory.v1.ContextService": ("Assemble",),
    "soma.graph.v1.GraphService": ("GetLinks", "Neighbors", "FindPath", "Subgraph", "Rank"),
    "soma.batch.v1.BatchService": ("RecallMany", "GetImport", "ListImportErrors", "ExportRecords"),
    "soma.admin.v1.OperatorService": (
        "GetComponents",
        "ListBreakers",
        "GetOutbox",
        "ListDeadLetters",
        "GetIndexStatus",
        "ListPoisonedRows",
        "GetIndexJob",
        "ListIndexJobs",
    ),
}
_AREAS = {
    "soma.memory.v1.MemoryService": "memory",
    "soma.memory.v1.WatchService": "memory",
    "soma.memory.v1.WorkingMemoryService": "memory",
    "soma.memory.v1.ContextService": "memory",
    "soma.graph.v1.GraphService": "graph",
    "soma.batch.v1.BatchService": "batch",
    "soma.admin.v1.OperatorService": "operator",
}

SCOPES = MappingProxyType(
    {f"/{service}/": f"{area}:write" for service, area in _AREAS.items()}
    | {f"/{service}/{rpc}": f"{_AREAS[service]}:read" for service, rpcs in _READS.items() for rpc in rpcs}
    | {
        "/soma.admin.v1.TenantService/": "admin:tenants",
        "/soma.admin.v1.TenantService/Authenticate": "act-as",
        "/soma.memory.v1.SessionService/": "act-as",
        "/soma.admin.v1.OperatorService/GetServerInfo": "",
        "/soma.admin.v1.OperatorService/WhoAmI": "",
    }
)
"""Path of a method, or of a service with a slash at its end, to the scope it needs; empty needs none."""

TENANTLESS = ("/soma.admin.v1.",)
"""Services that may be called for no tenant."""

AGENT_SCOPES = ("memory:*", "graph:*", "batch:*", "operator:read")
"""What a key gets when its maker names no scopes."""
