"""The administrative acts that the audit records, and the contents of their records. Pure.

Every public request is either in ACTS or only reads, writes messages or takes part in a group: `tests/rules` holds the
two lists complete, so that a new request is not forgotten.
"""

from typing import Any

import msgspec

from ...transport.protocol.cluster import ChangeNode, ElectLeader, ReassignPartitions
from ...transport.protocol.delayed import CancelScheduled
from ...transport.protocol.deployments import ChangeDeployment, Deploy
from ...transport.protocol.groups import DeleteGroup, PauseGroup, ResetOffsets, ResumeGroup
from ...transport.protocol.message import Request
from ...transport.protocol.mirrors import ChangeMirror, CreateMirror, PromoteMirror
from ...transport.protocol.operations import Kill, Revive
from ...transport.protocol.quotas import RemoveQuota, SetQuota
from ...transport.protocol.security import (
    AddCredential,
    AddRule,
    AlterPrincipal,
    RemoveCredential,
    RemovePrincipal,
    RemoveRule,
)
from ...transport.protocol.shares import ConfigureShareGroup
from ...transport.protocol.topics import AlterTopic, CreateTopic, DeleteRecords, DeleteTopic

ACTS: frozenset[type[Request]] = frozenset(
    {
        CreateTopic,
        AlterTopic,
        DeleteTopic,
        DeleteRecords,
        ResetOffsets,
        DeleteGroup,
        PauseGroup,
        ResumeGroup,
        ConfigureShareGroup,
        CancelScheduled,
        Kill,
        Revive,
        SetQuota,
        RemoveQuota,
        Deploy,
        ChangeDeployment,
        CreateMirror,
        ChangeMirror,
        PromoteMirror,
        ChangeNode,
        ReassignPartitions,
        ElectLeader,
        AddCredential,
        RemoveCredential,
        AlterPrincipal,
        RemovePrincipal,
        AddRule,
        RemoveRule,
    }
)
MAX_NAME_CHARACTERS = 250
MAX_DETAILS_BYTES = 4_096
_PREFIXES = {
    "group": "group:",
    "topic": "topic:",
    "address": "actor:",
    "principal": "principal:",
    "subject": "principal:",
    "client_id": "client:",
    "scheduled_id": "delayed:",
    "node": "node:",
    "mirror": "mirror:",
}
"""Fields that name the resource of a request, the first one that it has."""
_SECRETS = frozenset({"salt", "scrypt", "sha256", "proof", "token", "password"})
"""Fields whose texts are left out. Hashes are among them: a weak password can be found by its hash."""
_OMITTED = frozenset({"id", "op", "greeted"})


def op_of(request: Request) -> str:
    return str(request.__struct_config__.tag)


def resource_of(request: Request) -> str:
    """Return the resource that a request names."""
    for field, prefix in _PREFIXES.items():
        value = getattr(request, field, None)
        if value is not None and value is not msgspec.UNSET and str(value):
            name = str(value)
            return (name if name.startswith("role:") else prefix + name)[:MAX_NAME_CHARACTERS]
    return "cluster"


def details_of(request: Request) -> dict[str, Any] | None:
    """Return the arguments of an act without its secrets; those that are too large are cut."""
    given = msgspec.to_builtins(request, str_keys=True)
    named = next((field for field in _PREFIXES if getattr(request, field, None)), "")
    details = _without_secrets({k: v for k, v in given.items() if k not in _OMITTED and k != named})
    text = msgspec.json.encode(details)
    if len(text) > MAX_DETAILS_BYTES:
        return {"beginning": text[:MAX_DETAILS_BYTES].decode(errors="ignore")}
    return details or None


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: sorted(each) if name == "environment" and isinstance(each, dict) else _without_secrets(each)
            for name, each in value.items()
            if each is not None and not (name in _SECRETS and isinstance(each, str))
        }
    return [_without_secrets(each) for each in value] if isinstance(value, list) else value
