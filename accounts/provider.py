"""Google and any other OpenID provider, as allauth's providers (it looks for them in a module of this name).

allauth's own two trust the token endpoint's TLS instead of the token's signature, send no nonce and fall
back to the userinfo endpoint. These keep allauth's flow (state, session, linking, second factors) and
replace what it takes for proof: an ID token that :mod:`accounts.openid` has verified, and nothing else.
"""

from __future__ import annotations

import secrets
from functools import partial
from typing import Any
from urllib.parse import quote, urlencode

from allauth.account.utils import get_next_redirect_url
from allauth.socialaccount.helpers import render_authentication_error
from allauth.socialaccount.models import SocialToken
from allauth.socialaccount.providers.base import AuthProcess, ProviderAccount
from allauth.socialaccount.providers.oauth2.client import OAuth2Client
from allauth.socialaccount.providers.oauth2.provider import OAuth2Provider
from allauth.socialaccount.providers.oauth2.utils import generate_code_challenge
from allauth.socialaccount.providers.oauth2.views import OAuth2Adapter, OAuth2CallbackView
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone

from accounts.openid import documents
from accounts.openid.errors import SignInRefused
from accounts.openid.identity import Identity, identity_of
from accounts.openid.keys import key_for
from accounts.openid.metadata import GOOGLE_ISSUER, Metadata, metadata_of
from accounts.openid.tokens import Expected, verify

SCOPE = ["openid", "email", "profile"]
NONCE_BYTES = 32
PROCESSES = (AuthProcess.LOGIN, AuthProcess.CONNECT)


class Client(OAuth2Client):  # type: ignore[misc]
    """Sends people to the provider and redeems the code they come back with."""

    def get_redirect_url(self, authorization_url: str, scope: list[str], extra_params: dict[str, Any]) -> str:
        query = "&" if "?" in authorization_url else "?"
        params = {
            "client_id": self.consumer_key,
            "redirect_uri": self.callback_url,
            "response_type": "code",
            "scope": " ".join(scope),
            "state": self.state,
        }
        return f"{authorization_url}{query}{urlencode(params | extra_params)}"

    def get_access_token(
        self, code: str, pkce_code_verifier: str | None = None, extra_data: object = None
    ) -> dict[str, Any]:
        """The token endpoint's answer, which must hold both tokens as text."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.callback_url,
            "code_verifier": pkce_code_verifier or "",
        }
        secret = {"client_id": self.consumer_key, "client_secret": self.consumer_secret}
        if self.basic_auth:
            # Encoded before they become Basic credentials: RFC 6749, section 2.3.1.
            auth = (quote(self.consumer_key, safe=""), quote(self.consumer_secret, safe=""))
            answer = documents.submit(self.access_token_url, form, auth)
        else:
            answer = documents.submit(self.access_token_url, form | secret)
        if not all(isinstance(answer.get(name), str) for name in ("id_token", "access_token")):
            raise SignInRefused("no-token")
        return answer


class OpenIDAdapter(OAuth2Adapter):  # type: ignore[misc]
    """One login's way through the flow. ``nonce`` is what its session has kept."""

    client_class = Client
    nonce = ""

    def __init__(self, request: HttpRequest, provider_id: str) -> None:
        self.provider_id = provider_id
        super().__init__(request)

    @property
    def metadata(self) -> Metadata:
        found: Metadata = self.get_provider().metadata
        return found

    @property
    def authorize_url(self) -> str:
        return self.metadata.authorization_endpoint

    @property
    def access_token_url(self) -> str:
        return self.metadata.token_endpoint

    @property
    def basic_auth(self) -> bool:
        return self.metadata.basic_auth

    def get_callback_url(self, request: HttpRequest, app: Any) -> str:
        return f"{settings.BASE_URL}{reverse(f'{self.provider_id}_callback')}"

    def get_access_token_data(
        self, request: HttpRequest, app: Any, client: Client, pkce_code_verifier: str | None = None
    ) -> dict[str, Any]:
        """Redeem the code, unless the answer says that it is another provider's (RFC 9207)."""
        said = request.GET.get("iss", "" if self.metadata.names_itself else self.metadata.issuer)
        if said != self.metadata.issuer:
            raise SignInRefused("issuer")
        return client.get_access_token(request.GET["code"], pkce_code_verifier)

    def parse_token(self, data: Any) -> SocialToken:
        """Nothing is asked of the provider later: its tokens are not kept."""
        return SocialToken(token="")

    def complete_login(self, request: HttpRequest, app: Any, token: SocialToken, **kwargs: Any) -> Any:
        answer, provider = kwargs["response"], self.get_provider()
        expected = Expected(
            issuers=provider.issuers,
            client_id=app.client_id,
            nonce=self.nonce,
            access_token=answer["access_token"],
        )
        claims = verify(
            answer["id_token"],
            key_for=partial(key_for, self.metadata.jwks_uri),
            expected=expected,
            now=timezone.now().timestamp(),
        )
        return provider.sociallogin_from_response(request, provider.identity(claims))


class CallbackView(OAuth2CallbackView):  # type: ignore[misc]
    """The way back from the provider; the state taken from the session brings the login's nonce."""

    def _get_state(self, request: HttpRequest, provider: Any) -> tuple[Any, HttpResponse | None]:
        state, response = super()._get_state(request, provider)
        if state is not None:
            self.adapter.nonce = state.get("nonce", "")
        return state, response


class OpenIDAccount(ProviderAccount):  # type: ignore[misc]
    """A linked identity, as allauth words it."""

    def to_str(self) -> str:
        return str(self.account.extra_data.get("email", ""))


class OpenIDProvider(OAuth2Provider):  # type: ignore[misc]
    """The OpenID provider that the operator names; ``app.settings["issuer"]`` says which."""

    id = "oidc"
    name = "OpenID"
    account_class = OpenIDAccount
    oauth2_adapter_class = OpenIDAdapter
    says_domain = False

    def __init__(self, request: HttpRequest, app: Any = None) -> None:
        super().__init__(request, app=app)
        self.name = app.name or self.name

    @property
    def metadata(self) -> Metadata:
        return metadata_of(self.app.settings["issuer"])

    @property
    def issuers(self) -> frozenset[str]:
        return frozenset({self.metadata.issuer})

    def identity(self, claims: dict[str, Any]) -> Identity:
        return identity_of(
            claims,
            issuer=self.metadata.issuer,
            says_domain=self.says_domain,
            groups_claim=self.app.settings.get("groups_claim", ""),
        )

    def get_oauth2_adapter(self, request: HttpRequest) -> OpenIDAdapter:
        return OpenIDAdapter(request, self.id)

    def get_pkce_params(self) -> dict[str, Any]:
        params: dict[str, Any] = generate_code_challenge()
        return params

    def get_redirect_from_request_kwargs(self, request: HttpRequest) -> dict[str, Any]:
        """What a form may choose: to sign in or to link, and where to go then. Not the scope, nor more."""
        process = request.GET.get("process")
        return {
            "process": process if process in PROCESSES else AuthProcess.LOGIN,
            "next_url": get_next_redirect_url(request),
        }

    def redirect(
        self, request: HttpRequest, process: str, next_url: str | None = None, data: Any = None, **kwargs: Any
    ) -> HttpResponse:
        nonce = secrets.token_urlsafe(NONCE_BYTES)
        params = self.get_auth_params() | {"nonce": nonce}
        response: HttpResponse
        try:
            response = super().redirect(
                request, process, next_url, data, scope=SCOPE, auth_params=params, nonce=nonce, **kwargs
            )
        except SignInRefused as error:
            response = render_authentication_error(request, self, exception=error)
        return response

    def extract_uid(self, data: Identity) -> str:
        return data.uid

    def extract_extra_data(self, data: Identity) -> dict[str, Any]:
        return data.as_dict()

    def extract_common_fields(self, data: Identity) -> dict[str, Any]:
        """None: allauth would keep addresses from them, and match people by these."""
        return {}


class GoogleProvider(OpenIDProvider):
    """Google, which alone may say to which organisation an account belongs (``hd``)."""

    id = "google"
    name = "Google"
    says_domain = True

    @property
    def metadata(self) -> Metadata:
        return metadata_of(self.app.settings.get("issuer", GOOGLE_ISSUER))

    @property
    def issuers(self) -> frozenset[str]:
        """With or without the scheme: Google's manual allows both."""
        issuer = self.metadata.issuer
        return frozenset({issuer, issuer.removeprefix("https://")})

    @property
    def domains(self) -> list[str]:
        """The organisations that may sign in; none named: everybody."""
        return list(self.app.settings.get("domains", ()))

    def get_auth_params(self) -> dict[str, Any]:
        """The hint spares people of one organisation a choice among accounts; it proves nothing."""
        hint = {"hd": self.domains[0]} if len(self.domains) == 1 else {}
        return {"prompt": "select_account"} | hint

    def identity(self, claims: dict[str, Any]) -> Identity:
        found = super().identity(claims)
        if self.domains and found.hosted_domain not in self.domains:
            raise SignInRefused("domain")
        return found


provider_classes = [GoogleProvider, OpenIDProvider]
