"""Whom the workers run as."""

from __future__ import annotations

import grp
import os
import pwd
from typing import NamedTuple

from fastgate.server.sockets import OpenError

__all__ = ["Identity", "identity_of"]


class Identity(NamedTuple):
    uid: int
    gid: int
    groups: tuple[int, ...]

    def take(self) -> None:
        """For good: nothing leads back."""
        os.setgroups(self.groups)
        os.setgid(self.gid)
        os.setuid(self.uid)


def identity_of(user: str) -> Identity | None:
    """Of "name" or "name:group"; None for "". Raises OpenError where there is none, or it can't be taken."""
    if not user:
        return None
    name, _, group = user.partition(":")
    try:
        found = pwd.getpwnam(name)
        gid = grp.getgrnam(group).gr_gid if group else found.pw_gid
    except KeyError as error:
        raise OpenError(f"user {user}: {error.args[0]}") from None
    if os.geteuid() == found.pw_uid and os.getegid() == gid:
        return None
    if os.geteuid() != 0:
        raise OpenError(f"user {user}: only root may become somebody else")
    groups = (gid,) if group else tuple(os.getgrouplist(name, gid))
    return Identity(found.pw_uid, gid, groups)
