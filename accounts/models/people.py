"""People. A person is the provider's issuer and subject, never an e-mail address."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.db import models
from django.utils import timezone

from accounts.credentials import random_text

LOCAL_ISSUER = "urn:trenza:local"
USERNAME_LENGTH = 20
SUBJECT_LENGTH = 24


def new_username() -> str:
    """A user name that nobody types: allauth wants one, and it must not say who the person is."""
    return "u" + random_text(USERNAME_LENGTH)


def new_subject() -> str:
    """The subject of a person whom no provider vouches for (made by a command)."""
    return random_text(SUBJECT_LENGTH)


class UserManager(BaseUserManager["User"]):
    """Makes people without passwords: they sign in by link, provider or passkey."""

    def create_user(self, *, email: str, **values: Any) -> User:
        user = self.model(email=self.normalize_email(email), **values)
        user.set_unusable_password()
        user.save(using=self._db)
        return user


class User(AbstractBaseUser):
    """One person, who may be a member of several tailnets."""

    class Theme(models.TextChoices):
        SYSTEM = "system"
        LIGHT = "light"
        DARK = "dark"

    username = models.CharField(max_length=32, unique=True, default=new_username, editable=False)
    email = models.EmailField()
    display_name = models.CharField(max_length=200, blank=True)
    picture_url = models.URLField(max_length=1000, blank=True)
    iss = models.CharField(max_length=255, default=LOCAL_ISSUER)
    sub = models.CharField(max_length=255, default=new_subject)
    groups = models.JSONField(default=list, blank=True)  # as their provider said at the last sign-in
    is_active = models.BooleanField(default=True)
    language = models.CharField(max_length=10, blank=True)
    theme = models.CharField(max_length=10, choices=Theme, default=Theme.SYSTEM)
    created = models.DateTimeField(default=timezone.now)

    USERNAME_FIELD = "username"
    EMAIL_FIELD = "email"
    REQUIRED_FIELDS = ["email"]

    objects = UserManager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["iss", "sub"], name="one_person_per_identity")]
        indexes = [models.Index(fields=["email"])]

    def __str__(self) -> str:
        return self.email

    @property
    def login_name(self) -> str:
        """What others see as this person's login: the e-mail address."""
        return self.email

    @property
    def name(self) -> str:
        return self.display_name or self.email.partition("@")[0]

    def has_perm(self, perm: str, obj: object = None) -> bool:
        """Django's permissions are not used: see :mod:`accounts.roles`."""
        return False
