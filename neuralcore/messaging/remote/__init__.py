"""The link of every transport but the native one: leases, group commit, prefetch, suspects."""

from neuralcore.messaging.remote.link import RemoteLink

__all__ = ["RemoteLink"]
