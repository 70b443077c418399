"""What an administrator decides on a device's page: the switches of what it offers."""

from __future__ import annotations

from tests.lab.conftest import World
from tests.lab.net import LabError
from tests.lab.node import Node
from tests.lab.person import Page
from tests.lab.processes import wait_for

EXIT = "exit node"


def approve(world: World, node: Node, *offers: str, approved: bool = True) -> None:
    """Switch these offers (prefixes, or ``EXIT``) on or off, once the page has them."""
    address = f"/devices/{node.status()['Self']['ID']}"
    for offer in offers:
        action = "/approve-exit-node" if offer == EXIT else "/approve-route"

        def shown(offer: str = offer, action: str = action) -> Page:
            page = world.admin.open(address)
            page.form(action)
            if offer != EXIT and f'value="{offer}"' not in page.text:
                raise LabError(f"the page has no switch for {offer}")
            return page

        page = wait_for(f"{node.name} offers {offer}", shown)
        fields = {} if offer == EXIT else {"prefix": offer}
        switch = {"approved": "1"} if approved else {}
        form = page.form(action)
        form.fields.pop("approved", None)
        answer = world.admin.send(page, form, **fields, **switch)
        assert answer.status == 200, answer.text
