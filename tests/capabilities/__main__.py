"""`python -m capabilities`: write the table of capabilities and print its counts; what it gets wrong, a test says."""

from capabilities.ledger import settle
from capabilities.marks import collect
from capabilities.table import FILE, render, summary

if __name__ == "__main__":
    shown = collect()
    settle(shown)
    FILE.write_text(render(shown))
    print(summary(shown), end="")
