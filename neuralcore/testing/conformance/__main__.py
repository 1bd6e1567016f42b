"""``python -m neuralcore.testing.conformance URL [--json] [NAME …]``: for a tree without the command-line extra."""

# ruff: noqa: T201

from __future__ import annotations

import json
import sys

from neuralcore.testing.conformance.runner import run


def main(arguments: list[str]) -> int:
    as_json = "--json" in arguments
    url, *only = [argument for argument in arguments if argument != "--json"] or ["native://"]
    report = run(url, only=only)
    print(json.dumps(report.to_dict(), indent=2) if as_json else report)
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
