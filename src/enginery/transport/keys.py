"""The keys of one cluster, and what each role is given of them.

One CURVE pair for the controller, one for each role, and one token per role for same-host connections. All
peers of a role share its credentials: they prove what somebody may say, and the hello who is speaking.
"""

from __future__ import annotations

import hmac
import secrets

import msgspec

from enginery.transport.channel import Role


class RoleCredentials(msgspec.Struct, frozen=True):
    """What a peer of one role needs. CURVE keys are Z85 text, 40 characters."""

    role: Role
    server_key: str  # the controller's public key
    public_key: str
    secret_key: str
    token: str

    def __repr__(self) -> str:
        return f"<RoleCredentials {self.role.value}>"


class ClusterKeys(msgspec.Struct, frozen=True):
    """All secrets of one cluster: what the controller holds."""

    server_public: str
    server_secret: str
    roles: dict[str, RoleCredentials]

    def __repr__(self) -> str:
        return f"<ClusterKeys for {', '.join(sorted(self.roles))}>"

    @classmethod
    def generate(cls) -> ClusterKeys:
        import zmq

        server_public, server_secret = (key.decode() for key in zmq.curve_keypair())
        roles = {}
        for role in Role:
            public, secret = (key.decode() for key in zmq.curve_keypair())
            roles[role.value] = RoleCredentials(
                role, server_public, public, secret, token=secrets.token_urlsafe(32)
            )
        return cls(server_public, server_secret, roles)

    def credentials(self, role: Role) -> RoleCredentials:
        return self.roles[role.value]

    def role_of_key(self, public_key: str) -> Role | None:
        """Whose public key this is. The caller has proof that the peer holds the secret half."""
        # All of them are compared, whatever the first ones say: the time taken tells nothing.
        matches = [entry.role for entry in self.roles.values() if _equal(entry.public_key, public_key)]
        return matches[0] if matches else None

    def role_of_token(self, name: str, token: str) -> Role | None:
        """The role called `name`, if this is its token."""
        matches = [
            entry.role
            for entry in self.roles.values()
            if _equal(entry.token, token) & _equal(entry.role.value, name)
        ]
        return matches[0] if matches else None


def _equal(known: str, given: str) -> bool:
    return hmac.compare_digest(known.encode(), given.encode("utf-8", "replace"))
