"""Members of a model file with the right digests, whatever they hold."""

from __future__ import annotations

import json
from typing import Any

from flowbdt import atomic_files


def hashed(members: dict[str, bytes]) -> dict[str, bytes]:
    """Return members whose digests are stated as they are, as far as they can be."""
    members, digest = dict(members), atomic_files.digest_bytes
    plan, manifest = (_parsed(members[name]) for name in ("plan.json", "manifest.json"))
    try:
        fingerprint = plan["fingerprint"]
        for name in fingerprint["fitted"]:
            fingerprint["fitted"][name] = digest(members[name])
        plan["digest"] = atomic_files.digest(fingerprint)
        members["plan.json"] = atomic_files.json_bytes(plan)
    except (KeyError, TypeError, AttributeError):
        pass
    try:
        manifest["digest"] = plan["digest"] if "digest" in manifest else manifest["digest"]
        for kind in ("files", "models"):
            for name in manifest[kind]:
                manifest[kind][name] = digest(members[name])
        members["manifest.json"] = atomic_files.json_bytes(manifest)
    except (KeyError, TypeError, AttributeError):
        pass
    return members


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None
