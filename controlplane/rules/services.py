"""What may be used at a device, in words."""

from __future__ import annotations

from collections.abc import Iterable

from django.utils.translation import gettext as _

from controlplane.netmap.policy.model import ALL_PORTS, Service, Target
from controlplane.netmap.policy.selectors import Addresses
from controlplane.rules.gains import NUMBERS
from controlplane.rules.words import ports_in_words

MAX_SAID = 6


def targets_in_words(targets: Iterable[Target], addresses: tuple[int, ...]) -> list[str]:
    """What some targets open at the device with these addresses and behind it: each thing once."""
    here: dict[str, None] = {}
    behind: dict[str, None] = {}
    for target in targets:
        place = _behind(target, addresses)
        for service in target.services:
            what = service_in_words(service)
            if place:
                behind[_("%(what)s at %(network)s") % {"what": what, "network": place}] = None
            else:
                here[what] = None
    everything = service_in_words(Service())
    said = [*([everything] if everything in here else here), *behind]
    return [*said[:MAX_SAID], *(["…"] if len(said) > MAX_SAID else [])]


def _behind(target: Target, addresses: tuple[int, ...]) -> str:
    """Where else than at the device itself a target is: what it routes; "" = at itself."""
    selector = target.selector
    if not isinstance(selector, Addresses) or any(map(selector.spans.contains, addresses)):
        return ""
    return _("the internet") if selector.internet else selector.text


def service_in_words(service: Service) -> str:
    """Ports and protocols."""
    names = ", ".join(
        NUMBERS.get(one, _("IP protocol %(number)s") % {"number": one}) for one in service.protocols
    )
    if service.ports == (ALL_PORTS,):
        return names or _("everything")
    texts = [str(first) if first == last else f"{first}-{last}" for first, last in service.ports]
    return " ".join(filter(None, (names, ports_in_words(",".join(texts)))))
