"""Sign-in to the dashboard with an identity provider (OpenID Connect).

The flow is the authorization code flow with PKCE, state and nonce
(https://openid.net/specs/openid-connect-core-1_0.html). It belongs to one browser: what it needs to
continue is in an encrypted cookie of this browser. The provider names the person, and the settings
give them a role.
"""
