"""The proof that a publish gives before the pointer moves."""

from publisher.proof.proof import Proof

__all__ = ["Proof"]
