"""The first step of every child: tie its life to the supervisor's, give up root, become the program.

Run as a script by a bare interpreter (`python -I -S launch.py`), so that the supervisor, which has threads, never
runs Python between fork and exec. The order is JSON in the variable SOMA_LAUNCH, where other users cannot read it:
{"argv": [...], "environment": {...}, "parent": pid, "death_signal": number, "user": user id or null}.
"""

from __future__ import annotations

import ctypes
import json
import os
import pwd
import sys

PR_SET_PDEATHSIG = 1
PR_SET_KEEPCAPS = 8
PR_SET_SECUREBITS = 28
SECBIT_NO_SETUID_FIXUP = 1 << 2
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2
CAPABILITY_VERSION_3 = 0x20080522


class _CapabilityHeader(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _CapabilitySet(ctypes.Structure):
    _fields_ = [
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    ]


def give_up_root(uid: int, gid: int) -> None:
    """Becomes the user for good, keeping (on Linux) only the right to pass directories such as /root.

    Postgres refuses to run as root. Its programs and its data may lie under a directory that only root can enter;
    opening that directory to everybody would be worse than letting this one process through.
    """
    libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
    if libc is not None:
        libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
        # Without it access(2), with which Postgres looks for its own programs, would ignore what is kept below.
        libc.prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0)
    try:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    except PermissionError:
        sys.exit(
            f"root may not become user {uid} here (CAP_SETUID and CAP_SETGID are missing), and Postgres refuses to run "
            "as root: run everything as an ordinary user"
        )
    if libc is None:
        return
    header = _CapabilityHeader(CAPABILITY_VERSION_3, 0)
    held = (_CapabilitySet * 2)()
    libc.capget(ctypes.byref(header), held)
    # Reading and passing is enough where it can be had; containers often hold only the wider right.
    kept = held[0].permitted & 1 << CAP_DAC_READ_SEARCH or held[0].permitted & 1 << CAP_DAC_OVERRIDE
    wanted = (_CapabilitySet * 2)(_CapabilitySet(kept, kept, kept), _CapabilitySet(0, 0, 0))
    if libc.capset(ctypes.byref(header), wanted) != 0:
        sys.exit(f"the rights of root cannot be given up: {os.strerror(ctypes.get_errno())}")
    for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
        if kept & 1 << capability:
            libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0)


def main() -> None:
    order = json.loads(os.environ.pop("SOMA_LAUNCH"))
    argv: list[str] = order["argv"]
    if order["user"] is not None and os.geteuid() == 0:
        give_up_root(order["user"], pwd.getpwuid(order["user"]).pw_gid)
    if sys.platform == "linux":
        # After the change of user, which clears it.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, order["death_signal"], 0, 0, 0)
    if os.getppid() != order["parent"]:
        sys.exit("the supervisor ended before its child began")
    os.umask(0o077)
    try:
        os.execve(argv[0], argv, {**os.environ, **order["environment"]})
    except OSError as error:
        sys.exit(f"{argv[0]} cannot be started as user {os.geteuid()}: {error.strerror}")


if __name__ == "__main__":
    main()
