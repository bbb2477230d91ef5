"""Which scope each rpc needs; both servers enforce the same table."""

from __future__ import annotations

from types import MappingProxyType

OPERATOR = "operator:write"
"""Who has it runs the servers: every tenant is in reach of its administration."""

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
    "soma.admin.v1.TenantService": (
        "GetTenant",
        "ListTenants",
        "ListKeys",
        "GetUsage",
        "ListRetentionPolicies",
        "GetSchema",
        "ListSchemas",
        "GetSchemaMigration",
        "GetErase",
        "ListErases",
        "ExportSubject",
        "StreamAuditLog",
    ),
}
_OPERATORS = ("CreateTenant", "SuspendTenant", "ResumeTenant", "DeleteTenant", "StrikeOffBrain")
"""Calls of TenantService about which tenants there are, not about one of them."""
_AREAS = {
    "soma.memory.v1.MemoryService": "memory",
    "soma.memory.v1.WatchService": "memory",
    "soma.memory.v1.WorkingMemoryService": "memory",
    "soma.memory.v1.ContextService": "memory",
    "soma.graph.v1.GraphService": "graph",
    "soma.batch.v1.BatchService": "batch",
    "soma.admin.v1.OperatorService": "operator",
    "soma.admin.v1.TenantService": "admin",
}

SCOPES = MappingProxyType(
    {f"/{service}/": f"{area}:write" for service, area in _AREAS.items()}
    | {f"/{service}/{rpc}": f"{_AREAS[service]}:read" for service, rpcs in _READS.items() for rpc in rpcs}
    | {f"/soma.admin.v1.TenantService/{rpc}": OPERATOR for rpc in _OPERATORS}
    | {
        "/soma.admin.v1.TenantService/ListBrains": "operator:read",
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
