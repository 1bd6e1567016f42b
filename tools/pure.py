"""Write a project that is this distribution without its native core: ``python tools/pure.py FOLDER``.

Same name, version, dependencies and entry points, built by hatchling, so that it installs without a Rust toolchain:
editable for the Makefile, and as the ``py3-none-any`` wheel for platforms that no native wheel is built for.
"""

import json
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent


def project() -> str:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    table = tomllib.loads(text)["project"]
    table["readme"] = {"text": (ROOT / table["readme"]).read_text(encoding="utf-8"), "content-type": "text/markdown"}
    lines = [
        "[build-system]",
        'requires = ["hatchling>=1.27"]',
        'build-backend = "hatchling.build"',
        "[tool.hatch.build]",
        f"dev-mode-dirs = [{json.dumps(str(ROOT))}]",
        'exclude = ["*.so", "*.pyd", "*.dylib"]',
        "[tool.hatch.build.targets.wheel]",
        'packages = ["neuralcore"]',
        "[project]",
        *(f"{json.dumps(key)} = {toml(value)}" for key, value in table.items()),
    ]
    return "\n".join(lines) + "\n"


def toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text(project(), encoding="utf-8")
    package = folder / "neuralcore"
    if not package.is_symlink():
        package.symlink_to(ROOT / "neuralcore", target_is_directory=True)
    (folder / "LICENSE").write_bytes((ROOT / "LICENSE").read_bytes())


if __name__ == "__main__":
    main()
