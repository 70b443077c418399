"""A tailnet of many devices, and tokens for it.

``python -m bench.api.populate DEVICES FILE`` writes them as JSON.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

TOKENS = 40  # each has 600 calls a minute


def fill(devices: int, tokens: int) -> tuple[list[str], list[str]]:
    """The devices' IDs and the tokens' texts."""
    from django.utils import timezone

    from accounts.actors import Actor
    from accounts.services.tokens import create_api_token
    from accounts.tenancy import scope
    from bench.panel.populate import make_tailnet
    from nodes.models import Node

    tailnet, owner = make_tailnet(devices, timezone.now())
    made = [create_api_token(tailnet=tailnet, user=owner, by=Actor.command()).text for _ in range(tokens)]
    with scope(tailnet=tailnet):
        return list(Node.objects.order_by("pk").values_list("stable_id", flat=True)), made


def main(devices: int, file: Path) -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
    import django

    django.setup(set_prefix=False)
    ids, tokens = fill(devices, TOKENS)
    file.write_text(json.dumps({"ids": ids, "tokens": tokens}))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
