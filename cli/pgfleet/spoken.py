"""Hints of the database, which speak SQL, in the words of the command line.

The database cannot know who asks: in the SQL editor its hints are to be pasted as they are.
"""

from __future__ import annotations

import re

_NOUNS = {
    "geo_schedule_list": "geo list",
    "owner_invitation_list": "owner invitations",
    "owner_member_list": "owner members",
    "profile_list": "profile available",
    "sync_conflict_list": "sync conflicts NAME",
    "telemetry_rule_list": "telemetry rule list",
}

_QUOTED = r"'([^']*)'"
_PHRASES = tuple(
    (re.compile(pattern), words)
    for pattern, words in (
        (r"select id, expires_at, used_count from enrollment_codes", "pgfleet device codes"),
        (r"select name, description from command_types", "pgfleet command types"),
        (r"select id, name from blackout_calendars", "pgfleet blackout list"),
        (
            r"select create_enrollment_code\(p_max_uses => (\d+), p_expires_in => '([^']*)'\)",
            r"pgfleet device enroll-code --uses \1 --expires '\2'",
        ),
        (r"select create_integration\(.*?\)", "pgfleet integration create office --type simplemdm"),
        (r"select set_integration_secret\(.*?\)", "pgfleet integration set-secret NAME"),
        (r"select resume_integration\((.*?)\)", r"pgfleet integration resume \1"),
        (r"select create_integration_webhook\(\)", "pgfleet integration webhook create NAME"),
        (r"select create_calendar_feed\(\)", "pgfleet feed create NAME"),
        (r"select invite_member\(.*?\)", "pgfleet owner invite OWNER EMAIL"),
        (
            r"select set_member_permissions\(.*?\)",
            "pgfleet owner permit OWNER MEMBER --may admin",
        ),
        (
            r"Sign in as the person who is invited\.",
            "Say who it is: pgfleet --as WHO owner accept CODE",
        ),
        (
            r"Sign in as the person who leaves\.",
            "Say who it is: pgfleet --as WHO owner leave OWNER",
        ),
        (r"select rekey_device\(.*?\)", "pgfleet device rekey NAME"),
        (r"select duplicate_schedule\((.*?)\)", r"pgfleet schedule duplicate \1"),
        (rf"select remove_profile\({_QUOTED}, (.*?)\)", r"pgfleet profile remove \1 \2"),
        (r"select delete_group\((.*?), true\)", r"pgfleet group delete \1 --cascade"),
        (r"select create_geo_schedule\(.*?\)", "pgfleet geo create"),
        (r"select update_geo_schedule\((\w+), .*?\)", r"pgfleet geo update \1"),
        (r"select delete_geo_schedule\((.*?)\)", r"pgfleet geo delete \1"),
        (
            r"select override_geo_commitment\(.*?\)",
            "pgfleet geo override ID --reason WHY --device NAME",
        ),
        (r"select owner_usage\(.*?\)(?: from owners)?", "pgfleet owner usage"),
        (r"select sync_status\((.*?)\)", r"pgfleet sync status \1"),
        (
            r"select sync_integration\(.*?\)(?: from device_integrations)?",
            "pgfleet integration sync NAME",
        ),
        (r"select cancel_command\((.*?)\)", r"pgfleet command cancel \1"),
        (r"select retry_deployment\(.*?\) from deployments", "pgfleet deploy retry ID"),
        (
            r"select \* from rollout_group_list where run_id = (\w+)",
            r"pgfleet deploy show --run \1",
        ),
        (
            r"select \* from deployment_target_list where deployment_id = (\w+)",
            r"pgfleet deploy targets \1",
        ),
        (r"select test_webhook_endpoint\((.*?)\)", r"pgfleet webhook test \1"),
        (r"select update_webhook_endpoint\((\w+), .*?\)", r"pgfleet webhook update \1 --enable"),
        (
            r"Name owner_id, or set a default: select fleet\.set_setting\('default_owner', .*\)",
            "Name it with --owner, or set a default: pgfleet owner set-default NAME",
        ),
        (
            r"select fleet\.set_setting\('(\w+)', '([^']*)'\)",
            r"pgfleet setting set \1 \2",
        ),
        (r"select \* from fleet_checkup\(\)", "pgfleet doctor"),
        (r"select fleet_repair\(.*?\)", "pgfleet doctor --fix"),
        (r"select \* from device_list where clone_seen_at is not null", "pgfleet device clones"),
        (r"select resume_schedule\(.*?\)", "pgfleet schedule resume NAME"),
        (r"select fleet_status\(\) -> 'engine' -> 'steps'", "pgfleet status --json"),
        (r"select fleet_status\(\)", "pgfleet status"),
        (r"select fleet\.begin_move\(.*?\)", "pgfleet owner export OWNER"),
        (r"select fleet\.finish_move\(.*?\)", "pgfleet owner moved-to OWNER"),
        (r"insert into app_categories .*? values \(.*?\)", "pgfleet geo category NAME APP"),
        (r"Name one of them: p_integration_id", "Name one of them with --integration"),
    )
)
_LIST = re.compile(r"select \* from (\w+_list)(?: where status = '(\w+)')?")


def as_said_here(hint: str) -> str:
    """Say a hint as a person on the command line can follow it."""
    for pattern, words in _PHRASES:
        hint = pattern.sub(words, hint)
    return _LIST.sub(_listed, hint)


def _listed(found: re.Match[str]) -> str:
    view, status = found[1], found[2]
    noun = _NOUNS.get(view) or f"{view.removesuffix('_list')} list"
    return f"pgfleet {noun}" + (f" --status {status}" if status else "")
