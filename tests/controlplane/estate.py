"""Two tailnets with one of everything, each marked by a word that is in all of its texts.

What one tailnet's people are shown holds nothing of the other's: :attr:`Estate.marks` is what to look for.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from allauth.account.internal.flows import login
from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount
from allauth.usersessions.models import UserSession
from cryptography.hazmat.primitives.asymmetric import ec
from django.utils import timezone
from fido2.cose import ES256
from fido2.utils import websafe_encode
from fido2.webauthn import (
    Aaguid,
    AttestationObject,
    AttestedCredentialData,
    AuthenticatorData,
    CollectedClientData,
)

from accounts.actors import Actor
from accounts.models import AuditEvent, Contact, Invite, Membership, Outbox, Tailnet, User
from accounts.roles import Role
from accounts.services.contacts import set_contact
from accounts.services.invites import create_invite
from accounts.services.people import add_member, create_person
from accounts.services.signinlink import create_link
from accounts.services.tailnets import create_tailnet
from accounts.services.tokens import NewClient, NewToken, create_api_token, create_oauth_client
from accounts.tenancy import scope
from controlplane.models import Relay, Webhook
from controlplane.netmap.policy.default import TEXT as DEFAULT_POLICY
from controlplane.services import dns
from controlplane.services.ownrelays import add_relay
from controlplane.services.policy import save_policy
from controlplane.services.webhooks import create_webhook, deliveries, try_webhook
from nodes.models import Node, Route
from nodes.services.authkeys import NewAuthKey, create_auth_key
from nodes.services.lifecycle import set_notes
from nodes.services.logins import begin_login
from nodes.services.paths import record_paths
from tests.nodes import factories as machines
from tests.pages import Visitor
from wire.paths import PeerPath

ME = Actor.command()


@dataclass(kw_only=True)
class Estate:
    """One tailnet and what is in it. ``device`` is the owner's, ``waiting`` a device that nobody approved."""

    word: str
    prefix: str
    tailnet: Tailnet
    places: dict[Role, Membership]
    victim: Membership
    applicant: Membership
    device: Node
    waiting: Node
    route: Route
    key: NewAuthKey
    token: NewToken
    client: NewClient
    invite: Invite
    invite_token: str
    relay: Relay
    webhook: Webhook
    delivery: Outbox
    own: dict[int, Belongings] = field(default_factory=dict)

    @property
    def owner(self) -> User:
        return self.places[Role.OWNER].user

    @property
    def marks(self) -> Sequence[bytes]:
        """Bytes that are of this tailnet alone."""
        ids = (
            self.device.stable_id,
            self.device.machine_key,
            self.device.node_key,
            self.waiting.stable_id,
            self.key.key.public_id,
            self.token.token.public_id,
            self.client.client.public_id,
            self.webhook.public_id,
        )
        return [text.encode() for text in (self.word, self.prefix, *ids)]

    def fingerprint(self) -> tuple[object, ...]:
        """Alters with whatever changes the tailnet: its version, its audit log, who is in it."""
        row = Tailnet.objects.get(pk=self.tailnet.pk)
        with scope(tailnet=row):
            return (
                row.netmap_version,
                row.audit_head,
                AuditEvent.objects.count(),
                list(Membership.objects.order_by("pk").values_list("user_id", "role", "status")),
                list(Node.objects.order_by("pk").values_list("pk", "state")),
            )


@dataclass(frozen=True, kw_only=True)
class Belongings:
    """What is one person's own, whichever tailnets they are in."""

    device: Node
    key: NewAuthKey
    token: NewToken
    session: UserSession
    identity: SocialAccount
    passkey: Authenticator


def belongings(tailnet: Tailnet, user: User, word: str) -> Belongings:
    """A device, a key, a token, another browser, another identity and a passkey of one person."""
    return Belongings(
        device=machines.node(tailnet, user, hostname=f"{word}-own", preapproved=True),
        key=create_auth_key(tailnet=tailnet, by=ME, user=user, description=f"{word} own key"),
        token=create_api_token(tailnet=tailnet, user=user, by=ME, description=f"{word} own token"),
        session=UserSession.objects.create(
            user=user, ip="192.0.2.9", session_key=secrets.token_hex(16), user_agent=f"{word} browser"
        ),
        identity=SocialAccount.objects.create(
            user=user, provider="google", uid=f"{word}-{user.pk}", extra_data={"email": f"x@{word}.example"}
        ),
        passkey=Authenticator.objects.create(
            user=user,
            type=Authenticator.Type.WEBAUTHN,
            data={"name": f"{word} passkey", "credential": passkey(user.pk)},
        ),
    )


def passkey(number: int) -> dict[str, object]:
    """What a browser says of a passkey that it has just made (W3C WebAuthn, RegistrationResponseJSON)."""
    identifier = number.to_bytes(16, "big")
    public = ec.derive_private_key(number, ec.SECP256R1()).public_key()
    made = AttestedCredentialData.create(Aaguid(bytes(16)), identifier, ES256.from_cryptography_key(public))  # type: ignore[no-untyped-call]
    flags = AuthenticatorData.FLAG.UP | AuthenticatorData.FLAG.AT
    attested = AttestationObject.create("none", AuthenticatorData.create(bytes(32), flags, 0, made), {})
    client = CollectedClientData.create("webauthn.create", bytes(32), "http://testserver")
    return {
        "id": websafe_encode(identifier),
        "rawId": websafe_encode(identifier),
        "type": "public-key",
        "clientExtensionResults": {},
        "response": {"clientDataJSON": client.b64, "attestationObject": websafe_encode(bytes(attested))},
    }


def make_estate(word: str, network: int) -> Estate:
    """A tailnet named after ``word``; ``network`` is the second number of the prefix that it routes."""
    now, prefix = timezone.now(), f"10.{network}.77.0/24"
    owner = create_person(email=f"owner@{word}.example")
    tailnet, place = create_tailnet(name=f"{word}-net", owner=owner, by=ME)
    Tailnet.objects.filter(pk=tailnet.pk).update(display_name=f"Casa {word}")
    tailnet.refresh_from_db()

    def join(name: str, role: Role, **values: str) -> Membership:
        person = create_person(email=f"{name}@{word}.example")
        made = add_member(tailnet=tailnet, user=person, role=role, by=ME)
        if values:
            with scope(tailnet=tailnet):
                Membership.objects.filter(pk=made.pk).update(**values)
        return made

    places = {role: join(role.value, role) for role in Role if role is not Role.OWNER}
    offers = {"RoutableIPs": [prefix, "0.0.0.0/0", "::/0"], "Hostname": f"{word}-router", "OS": "linux"}
    device = machines.node(tailnet, owner, hostname=f"{word}-router", preapproved=True, hostinfo=offers)
    set_notes(node=device, notes=f"the notes of {word}", by=ME)
    waiting = machines.node(tailnet, owner, hostname=f"{word}-waiting")
    relay = add_relay(tailnet=tailnet, by=ME, name=f"Relay {word}", host="192.0.2.77", derp_port=443).relay
    webhook, _secret = create_webhook(
        tailnet=tailnet, url=f"https://{word}.example/hook", subscriptions=["nodeCreated"], by=ME
    )
    try_webhook(webhook=webhook, by=ME)
    dns.add_search_domain(tailnet=tailnet, by=ME, domain=f"search.{word}.example")
    dns.add_nameserver(tailnet=tailnet, by=ME, address="9.9.9.9", domain=f"split.{word}.example")
    dns.add_nameserver(tailnet=tailnet, by=ME, address="9.9.9.9")
    dns.add_record(tailnet=tailnet, by=ME, name=f"record.{word}.example", value="192.0.2.7")
    save_policy(tailnet=tailnet, text=f"// the policy of {word}\n{DEFAULT_POLICY}", by=ME, comment=word)
    set_contact(tailnet=tailnet, kind=Contact.Kind.SECURITY, email=f"contact@{word}.example", by=ME)
    invite = create_invite(tailnet=tailnet, email=f"invited@{word}.example", by=ME)
    with scope(tailnet=tailnet):
        route = Route.objects.get(node=device, prefix=prefix)
        delivery = deliveries(webhook)[0]
    made = Estate(
        word=word,
        prefix=prefix,
        tailnet=tailnet,
        places={Role.OWNER: place} | places,
        victim=join("victim", Role.MEMBER),
        applicant=join("applicant", Role.MEMBER, status=Membership.Status.NEEDS_APPROVAL),
        device=device,
        waiting=waiting,
        route=route,
        key=create_auth_key(tailnet=tailnet, by=ME, tags=["tag:web"], description=f"{word} key"),
        token=create_api_token(tailnet=tailnet, user=owner, by=ME, description=f"{word} token"),
        client=create_oauth_client(
            tailnet=tailnet, by=ME, scopes=["devices:core"], description=f"{word} client"
        ),
        invite=invite.invite,
        invite_token=invite.link.rpartition("/")[2],
        relay=relay,
        webhook=webhook,
        delivery=delivery,
    )
    for role, one in made.places.items():
        made.own[one.user_id] = belongings(tailnet, one.user, f"{word}-{role.value}")
    peer = PeerPath(node_id=made.own[owner.pk].device.pk, endpoint=f"10.{network}.77.9:41641", latency_ms=3)
    record_paths(tailnet=tailnet, node_id=device.pk, paths=[peer], now=now - timedelta(seconds=1))
    return made


def login_token(hostname: str) -> str:
    """The token of a machine that waits for somebody to let it in."""
    return begin_login(machine=machines.machine(hostname)).token


def link_token(user: User) -> str:
    """The token of a one-time link."""
    return create_link(user=user).token


def visitor_of(place: Membership) -> Visitor:
    """Somebody who has just shown their passkey, too: what asks for it again lets them through."""
    visitor = Visitor.of(place)
    session = visitor.session
    session[login.AUTHENTICATION_METHODS_SESSION_KEY] = [
        {"method": "mfa", "type": "webauthn", "at": time.time(), "reauthenticated": True}
    ]
    session[login._AUTHENTICATION_METHODS_USER_SESSION_KEY] = str(place.user_id)
    session.save()
    return visitor
