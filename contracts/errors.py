"""Every error that crosses a package boundary: two families, one root each.

`ContractError`: what was agreed on was broken (a manifest, a token, a database, a clock).
`StoreError`: a store did not do what was asked of it.
The text of each is one sentence that an operator can act on. Only `StoreUnavailable` is worth retrying.
"""

from __future__ import annotations


class ContractError(Exception):
    """What the roles agree on was broken."""


class MalformedError(ContractError, ValueError):
    """Bytes or fields that do not follow their format."""


class UnsupportedError(ContractError):
    """A format that is newer than this program."""


class DigestMismatchError(ContractError):
    """Bytes that are not the bytes their name or their manifest promises."""

    def __init__(self, name: str, expected: str, found: str) -> None:
        super().__init__(f"{name} should have the digest {expected} but has {found}")
        self.name = name
        self.expected = expected
        self.found = found


class ExpiredError(ContractError):
    """Something that was valid once and is no longer."""


class RollbackError(ContractError):
    """The store offers an older snapshot than was seen before, for longer than any cache would."""


class EquivocationError(ContractError):
    """Another history than the one seen before: another repository, or two manifests with one sequence."""


class SignatureError(ContractError):
    """What should be signed is not, by no key that is trusted, or by a key that must not be used any more."""


class HistoryError(ContractError):
    """A link of the chain of manifests is missing, damaged, or none of that chain."""


class SnapshotError(ContractError):
    """No such snapshot is kept, or it is none that can be gone back to."""


class SourceError(ContractError):
    """The authoritative catalogue cannot be read, or is not a catalogue."""


class ClockError(ContractError):
    """This machine's clock disagrees with the store's or with what was published before."""


class StoreError(Exception):
    """A store did not do what was asked of it."""


class ObjectMissing(StoreError):
    """No object has that key."""

    def __init__(self, key: str, where: str = "the store") -> None:
        super().__init__(f"{where} has no object {key}")
        self.key = key


class PreconditionFailed(StoreError):
    """The object exists already, or is no longer the one that was read."""


class ConflictError(StoreError):
    """Another publisher moved the pointer first."""


class AccessDenied(StoreError):
    """The store refused our credentials, or has no right for what was asked."""


class StoreUnavailable(StoreError):
    """The store did not answer, or answered that it cannot now; the only error that is retried."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class UnsuitableStore(StoreError):
    """The store cannot do what a publish needs, such as honouring preconditions."""


class TokenError(ContractError, ValueError):
    """A token that is not accepted; its text never holds the token, the secret or the locator."""


class MalformedToken(TokenError):
    """Text that is not a token of a version we know, or claims outside their bounds."""


class UnknownKey(TokenError):
    """A token signed by a key that is not, or no longer, in the ring."""


class BadSignature(TokenError):
    """A token that names one of our keys and was not signed by it."""


class WrongKind(TokenError):
    """A token that we signed, for another purpose than the one asked for."""


class NotYetValid(TokenError):
    """A token that we signed, before its first second."""


class ExpiredToken(TokenError):
    """A token that we signed, at or after its last second."""
