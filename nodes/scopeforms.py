"""The forms of a new API token and a new OAuth client: what it is for, how long, and what it may do."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from django import forms
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from accounts.scopes import ALL, READ
from accounts.services.tokens import MAX_DESCRIPTION, MAX_TAGS
from nodes.forms import read_tags

TOKEN_DAYS = (1, 7, 30, 90, 365)
DEFAULT_DAYS = 90
SOME = "some"
AREA_WORDS: dict[str, Promise] = {
    "devices:core": _("Devices"),
    "devices:routes": _("Routes and exit nodes"),
    "devices:posture_attributes": _("Posture attributes"),
    "users": _("Users"),
    "policy_file": _("Access rules"),
    "dns": _("DNS"),
    "auth_keys": _("Auth keys"),
    "api_access_tokens": _("API tokens"),
    "oauth_keys": _("OAuth clients"),
    "federated_keys": _("Federated identities"),
    "feature_settings": _("Feature settings"),
    "account_settings": _("Account settings"),
    "services": _("Services"),
    "log_streaming": _("Log streaming"),
    "logs:configuration": _("Audit log"),
    "logs:network": _("Network flow logs"),
}


class AreaRow(NamedTuple):
    """One area of the form: its field, its name in scopes, what it is called."""

    field: forms.BoundField
    area: str
    word: Promise


class ScopesForm(forms.Form):
    """``access``: everything, reading everything, or scopes chosen area by area, as far as ``allowed``."""

    description = forms.CharField(required=False, max_length=MAX_DESCRIPTION, strip=True)

    def __init__(self, data: Any = None, *, allowed: Sequence[str]) -> None:
        super().__init__(data)
        whole = [one for one in (ALL, ALL + READ) if one in allowed]
        choices = [(one, one) for one in (*whole, SOME)]
        self.fields["access"] = forms.ChoiceField(choices=choices, initial=SOME)
        self.whole = whole
        for area in AREA_WORDS:
            levels = {f"{area}{READ}": _("Read"), area: _("Read and write")}
            given = [(scope, word) for scope, word in levels.items() if scope in allowed]
            if given:
                options = [("", _("No access")), *given]
                self.fields[area] = forms.ChoiceField(choices=options, required=False)

    def areas(self) -> list[AreaRow]:
        """The areas that this person may give at all."""
        return [AreaRow(self[area], area, word) for area, word in AREA_WORDS.items() if area in self.fields]

    def may(self) -> list[str]:
        """The choices of ``access``."""
        return [*self.whole, SOME]

    def clean(self) -> dict[str, Any]:
        cleaned = self.cleaned_data
        if cleaned.get("access") == SOME and not self._chosen():
            self.add_error("access", _("Choose at least one thing that it may do."))
        return cleaned

    def _chosen(self) -> list[str]:
        return [scope for area in AREA_WORDS if (scope := self.cleaned_data.get(area))]

    def values(self) -> dict[str, Any]:
        """What the service takes."""
        access = self.cleaned_data["access"]
        return {
            "description": self.cleaned_data["description"],
            "scopes": self._chosen() if access == SOME else [access],
        }


class TokenForm(ScopesForm):
    days = forms.TypedChoiceField(
        choices=[(day, str(day)) for day in TOKEN_DAYS], coerce=int, initial=DEFAULT_DAYS
    )

    def values(self) -> dict[str, Any]:
        return super().values() | {"lifetime": timedelta(days=self.cleaned_data["days"])}


class ClientForm(ScopesForm):
    tags = forms.CharField(required=False, max_length=MAX_TAGS * 70)

    def clean_tags(self) -> list[str]:
        return read_tags(str(self.cleaned_data["tags"]))

    def values(self) -> dict[str, Any]:
        return super().values() | {"tags": self.cleaned_data["tags"]}
