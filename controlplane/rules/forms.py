"""The forms of rules: what a person fills in becomes a rule as the text has it, and the other way round."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from controlplane.netmap.policy.hujson import HuJSONError, parse, plain
from controlplane.rules.words import PROTOCOLS, strings

MAX_LINES = 20_000  # characters of one field
MAX_PROTOCOL = 20
ROWS = 2


NAMES = {"class": "form-control mono", "spellcheck": "false", "autocapitalize": "none", "autocomplete": "off"}
CHOICE = {"class": "form-select"}
# Members of rules that fields are named after; the others have their fields' names.
MEMBERS = {"src_posture": "srcPosture", "check_period": "checkPeriod", "accept_env": "acceptEnv"}


class Lines(forms.CharField):
    """Names, one a line; spaces and commas part them as well unless ``whole_lines``."""

    def __init__(self, *, whole_lines: bool = False, **options: Any) -> None:
        widget = forms.Textarea(attrs=NAMES | {"rows": ROWS})
        super().__init__(max_length=MAX_LINES, widget=widget, **options)
        self.whole_lines = whole_lines

    def names(self, text: str) -> list[str]:
        text = text if self.whole_lines else text.replace(",", "\n").replace(" ", "\n")
        return [line.strip() for line in text.splitlines() if line.strip()]


class RuleForm(forms.Form):
    """A rule of one section. ``words`` are the fields that are one string, ``fixed`` what each rule says."""

    words: tuple[str, ...] = ()
    fixed: Mapping[str, Any] = {}

    def described(self) -> RuleForm:
        """The form with its hints and errors named at their fields, to be shown."""
        for name, field in self.fields.items():
            said = [f"id_{name}-hint"] if field.help_text else []
            said += [f"id_{name}-error"] if self.is_bound and name in self.errors else []
            if said:
                field.widget.attrs["aria-describedby"] = " ".join(said)
        return self

    @classmethod
    def filled(cls, rule: Mapping[str, Any]) -> RuleForm:
        """The form with what a rule of the text says."""
        initial: dict[str, Any] = {}
        for name, field in cls.base_fields.items():
            value = rule.get(MEMBERS.get(name, name))
            if isinstance(field, Lines):
                initial[name] = "\n".join(strings(value))
            elif name in cls.words and isinstance(value, str):
                initial[name] = value
        return cls(initial=initial | cls.more_initial(rule))

    @classmethod
    def more_initial(cls, rule: Mapping[str, Any]) -> dict[str, Any]:
        """What other fields show of a rule."""
        return {}

    def clean(self) -> dict[str, Any]:
        """Names that are only commas are none."""
        cleaned = super().clean() or {}
        for name in ("src", "dst"):
            field = self.fields[name]
            if cleaned.get(name) and isinstance(field, Lines) and not field.names(cleaned[name]):
                self.add_error(name, _("Write at least one name."))
        return cleaned

    def said(self) -> dict[str, Any]:
        """The members that the fields are about; an empty one is not to be in the rule."""
        said: dict[str, Any] = {name: self.cleaned_data[name] for name in self.words}
        for name, field in self.fields.items():
            if isinstance(field, Lines):
                said[name] = field.names(self.cleaned_data[name])
        return {MEMBERS.get(name, name): value for name, value in said.items()}

    def rule(self, old: Mapping[str, Any]) -> dict[str, Any]:
        """What the form says as a rule; members of the old one that no field is about stay."""
        rule = dict(self.fixed) | dict(old)
        for name, value in self.said().items():
            if value:
                rule[name] = value
            else:
                rule.pop(name, None)
        return rule


SOURCES = _("Who: people, groups, tags or addresses, one a line. * is everyone.")


def _postures() -> Lines:
    return Lines(
        label=_("Only from devices that pass"),
        required=False,
        help_text=_("Names of postures; a device has to pass one of them."),
    )


class AccessForm(RuleForm):
    """A rule of ``acls``."""

    words = ("proto",)
    fixed = {"action": "accept"}
    src = Lines(label=_("From"), help_text=SOURCES)
    proto = forms.ChoiceField(
        label=_("Protocol"),
        required=False,
        widget=forms.Select(attrs=CHOICE),
        help_text=_("Without a choice: TCP, UDP and ICMP."),
    )
    dst = Lines(
        label=_("To"),
        whole_lines=True,
        help_text=_("What they reach, with its ports, one a line: tag:db:5432, tag:web:80,443, *:*"),
    )
    src_posture = _postures()

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        choices = {"": _("Any"), **PROTOCOLS}
        given = self.data.get("proto") if self.is_bound else self.initial.get("proto")
        if isinstance(given, str) and given.isascii() and len(given) <= MAX_PROTOCOL:
            choices.setdefault(given, given)
        field = self.fields["proto"]
        if isinstance(field, forms.ChoiceField):
            field.choices = list(choices.items())


class GrantForm(RuleForm):
    """A rule of ``grants``."""

    src = Lines(label=_("From"), help_text=SOURCES)
    dst = Lines(
        label=_("To"), help_text=_("What they reach: tags, groups, people, hosts or addresses, one a line.")
    )
    ip = Lines(
        label=_("Ports"),
        required=False,
        help_text=_("One a line: tcp:5432, udp:53, 8000-8100, icmp:*; * is any port and protocol."),
    )
    via = Lines(label=_("Via"), required=False, help_text=_("Tags of the routers that carry it."))
    app = forms.CharField(
        label=_("Capabilities of applications"),
        required=False,
        max_length=MAX_LINES,
        widget=forms.Textarea(attrs=NAMES | {"rows": ROWS}),
        help_text=_("A JSON object: each capability by its name, with a list of its parameters."),
    )
    src_posture = _postures()

    @classmethod
    def more_initial(cls, rule: Mapping[str, Any]) -> dict[str, Any]:
        """The capabilities as text."""
        app = rule.get("app")
        return {"app": json.dumps(app, indent="\t", ensure_ascii=False) if app else ""}

    def clean_app(self) -> Any:
        """The object that was written, or none; comments and last commas are as welcome as in the text."""
        text = str(self.cleaned_data["app"]).strip()
        if not text:
            return None
        try:
            app = plain(parse(text))
        except HuJSONError as error:
            raise forms.ValidationError(str(error)) from error
        if not isinstance(app, dict):
            raise forms.ValidationError(_("Write a JSON object, or nothing."))
        return app

    def clean(self) -> dict[str, Any]:
        """A grant gives something."""
        cleaned = super().clean()
        if not self.errors and not cleaned.get("ip", "").strip() and not cleaned.get("app"):
            self.add_error("ip", _("Write the ports that are open, or capabilities below."))
        return cleaned

    def said(self) -> dict[str, Any]:
        """The capabilities are an object."""
        return super().said() | {"app": self.cleaned_data["app"]}


class SSHForm(RuleForm):
    """A rule of ``ssh``."""

    words = ("action", "check_period")
    src = Lines(label=_("From"), help_text=SOURCES)
    dst = Lines(label=_("To"), help_text=_("Devices: tags, people, or autogroup:self for their own."))
    users = Lines(label=_("As"), help_text=_("Users of the device: autogroup:nonroot, root, or names."))
    action = forms.ChoiceField(
        label=_("What happens"),
        choices=[("accept", _("They get in")), ("check", _("They get in after signing in again"))],
        widget=forms.Select(attrs=CHOICE),
    )
    check_period = forms.CharField(
        label=_("Signs in again after"),
        max_length=MAX_PROTOCOL,
        required=False,
        widget=forms.TextInput(attrs=NAMES | {"placeholder": "12h"}),
        help_text=_("Such as 8h or always; 12h when empty. Only for those who sign in again."),
    )
    accept_env = Lines(
        label=_("Environment variables"),
        required=False,
        help_text=_("Names that may be sent along, such as LANG or GIT_*."),
    )
    src_posture = _postures()

    def said(self) -> dict[str, Any]:
        """A period belongs to a check."""
        said = super().said()
        return said if said["action"] == "check" else said | {"checkPeriod": ""}


FORMS: dict[str, type[RuleForm]] = {"acls": AccessForm, "grants": GrantForm, "ssh": SSHForm}
