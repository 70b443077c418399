"""Forms of the device pages: they check the shape and say what is wrong in the reader's language."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from nodes.names import is_label
from nodes.services.authkeys import MAX_DESCRIPTION
from nodes.services.lifecycle import MAX_NOTES
from nodes.tags import MAX_TAGS, invalid_tags, normalise_tags

KEY_DAYS = (1, 7, 30, 90)


class RenameForm(forms.Form):
    """A name of one's choice; empty = the host name's again."""

    name = forms.CharField(required=False, max_length=63)

    def clean_name(self) -> str:
        name = str(self.cleaned_data["name"]).strip().lower()
        if name and not is_label(name):
            raise forms.ValidationError(_("Use 1 to 63 of a-z, 0-9 and hyphens; no hyphen at either end."))
        return name


class NotesForm(forms.Form):
    notes = forms.CharField(required=False, max_length=MAX_NOTES, strip=True)


def read_tags(text: str) -> list[str]:
    """Tags as people write them: words apart by spaces or commas, with or without ``tag:``."""
    words = [word for word in re.split(r"[\s,;]+", text) if word]
    tags = normalise_tags(word if word.startswith("tag:") else f"tag:{word}" for word in words)
    if invalid_tags(tags):
        raise forms.ValidationError(
            _("A tag starts with a letter and has letters, digits and hyphens, for example tag:server.")
        )
    if len(tags) > MAX_TAGS:
        raise forms.ValidationError(_("There are at most %(number)d tags.") % {"number": MAX_TAGS})
    return tags


class TagsForm(forms.Form):
    """The tags that a device is to have: at least one."""

    tags = forms.CharField(max_length=MAX_TAGS * 70)

    def clean_tags(self) -> list[str]:
        return read_tags(str(self.cleaned_data["tags"]))


class AuthKeyForm(forms.Form):
    """A new auth key. ``tags`` are words separated by spaces or commas; ``tag:`` may be left out."""

    description = forms.CharField(required=False, max_length=MAX_DESCRIPTION)
    reusable = forms.BooleanField(required=False)
    ephemeral = forms.BooleanField(required=False)
    preauthorized = forms.BooleanField(required=False)
    tags = forms.CharField(required=False, max_length=MAX_TAGS * 70)
    days = forms.TypedChoiceField(
        choices=[(day, str(day)) for day in KEY_DAYS], coerce=int, initial=KEY_DAYS[-1]
    )

    def clean_tags(self) -> list[str]:
        return read_tags(str(self.cleaned_data["tags"]))

    def values(self) -> dict[str, Any]:
        """What ``create_auth_key`` takes."""
        cleaned = self.cleaned_data
        return {
            "description": cleaned["description"],
            "reusable": cleaned["reusable"],
            "ephemeral": cleaned["ephemeral"],
            "preauthorized": cleaned["preauthorized"],
            "tags": cleaned["tags"],
            "lifetime": timedelta(days=cleaned["days"]),
        }
