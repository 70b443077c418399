"""OpenID Connect as a relying party: what a provider says of itself, its keys, and its ID tokens.

Nothing here knows a session or a database: :mod:`accounts.provider` ties it to allauth's flow.
"""
