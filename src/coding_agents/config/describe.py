"""What the settings table says to people and editors: `config show`, the JSON schema, the reference page."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from coding_agents.model.settings import BY_KEY, SETTINGS, Setting, Settings, Source, Tighten, render_value

_SOURCES = {
    Source.DEFAULT: "default",
    Source.ORGANISATION: "organisation",
    Source.USER: "user",
    Source.PROJECT: "project",
    Source.ENVIRONMENT: "environment",
    Source.COMMAND_LINE: "command line",
}


class ShownSetting(msgspec.Struct, frozen=True):
    """One line of `config show`: the value as it is written in a file, and where it was set."""

    key: str
    value: str
    source: str
    where: str
    managed: bool


def shown_settings(settings: Settings) -> Iterator[ShownSetting]:
    """All settings in the order of the table."""
    for setting in SETTINGS:
        origin = settings.origins[setting.key]
        yield ShownSetting(
            setting.key,
            render_value(setting, settings.value(setting.key)),
            _SOURCES[origin.source],
            origin.where,
            setting.key in settings.managed,
        )


def json_schema() -> dict[str, object]:
    """The JSON schema of a settings file; `managed` is read in the organisation's file only."""
    sections: dict[str, dict[str, object]] = {}
    properties: dict[str, object] = {"managed": {"type": "array", "items": {"enum": list(BY_KEY)}}}
    for setting in SETTINGS:
        described = {**setting.schema, "description": setting.help, "default": _json_default(setting)}
        section, _, name = setting.key.rpartition(".")
        if section:
            sections.setdefault(section, {})[name] = described
        else:
            properties[name] = described
    for section, inner in sections.items():
        properties[section] = {"type": "object", "properties": inner, "additionalProperties": False}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "coding-agents settings",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }


def reference_page() -> str:
    """docs/reference/config.md."""
    rows = [
        "| key | default | what it is | flag | a repository may change it |",
        "| --- | --- | --- | --- | --- |",
    ]
    for setting in SETTINGS:
        choices = (
            f" One of {', '.join(f'`{choice}`' for choice in setting.choices)}." if setting.choices else ""
        )
        rows.append(
            f"| `{setting.key}` | `{render_value(setting, setting.default)}` | {setting.help}{choices} "
            f"| {f'`{setting.flag}`' if setting.flag else ''} | {_by_repository(setting)} |"
        )
    return _PAGE.replace("@TABLE@", "\n".join(rows))


def _by_repository(setting: Setting) -> str:
    return "no" if setting.tighten is Tighten.NEVER else setting.tighten.value


def _json_default(setting: Setting) -> object:
    if setting.key == "require":
        return {}
    if isinstance(setting.default, bool | int | tuple) and not setting.unit:
        return list(setting.default) if isinstance(setting.default, tuple) else setting.default
    return render_value(setting, setting.default).strip('"')


_PAGE = """\
<!-- Made by `python -m coding_agents.config.describe`; a test holds it to the settings table. -->
# Settings

A settings file is TOML. `coding-agents config show` prints every effective value and where it was set,
`config set KEY VALUE` writes the user's file and keeps its comments, `config schema` prints the JSON schema.

| layer, each over the one before | where |
| --- | --- |
| defaults | this page |
| organisation | `/etc/coding-agents/config.toml`, owned by root |
| user | `$XDG_CONFIG_HOME/coding-agents/config.toml` (`~/.config/…`) |
| project | `.coding-agents.toml` at the root of the repository |
| environment | `CODING_AGENTS_` and the key in capitals, `.` as `_`: `CODING_AGENTS_LIMITS_MEMORY=4g` |
| command line | the flag |

- A later layer replaces a value; lists add up, but for the words of a command.
- **A repository may only tighten.** Its file can move a value in the direction of the last column and no
  other; anything else stops the launch with `untrusted-setting` (exit status 25). The environment and the
  command line are the user's own word and stand above it.
- **An organisation can bind keys** with a list at the top of its file, `managed = ["network.mode"]`. What a
  repository may do, users may then do with such a key as well: tighten it where there is a direction, else
  nothing. Its value is the one in that file, or the default.
- `[require]` names protections that must be in force, `apparmor = true`; the launch is refused without them.
  Any layer can add one, none can drop another's. `best_effort = ["swap"]` lets one be missing that you asked for
  yourself, by `[require]` or by a limit that you set; never one that nothing starts without, and never one that your
  organisation requires.
- **The organisation's file is root's.** It and the directories above it belong to root and nobody else can write there;
  otherwise, or when it cannot be read or has a mistake, nothing is launched. `coding-agents doctor` says that there is
  one, `config show` which keys are managed. A refused value is named with its own place and with that of the rule.
- An unknown key, an unknown `CODING_AGENTS_` variable and a value out of range are errors; all mistakes of a
  file are shown together with their lines.

@TABLE@

Sizes are powers of 1024 (`8g`, `512m`), CPUs have decimals (`0.5`), durations are seconds or `90s`, `2m`,
`1h`.
"""

if __name__ == "__main__":
    print(reference_page(), end="")
