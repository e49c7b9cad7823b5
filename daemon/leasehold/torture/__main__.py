"""`python -m leasehold.torture KIND MARK`: one agent that misbehaves, and why Leasehold must not care."""

import sys

from leasehold.torture.agent import KINDS, misbehave

if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in KINDS:
        sys.exit(f"usage: python -m leasehold.torture KIND MARK\nKIND is one of: {' '.join(KINDS)}")
    misbehave(sys.argv[1], sys.argv[2])
