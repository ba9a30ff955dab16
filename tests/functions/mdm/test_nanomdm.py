"""NanoMDM over real HTTP: what is put on the queue of an enrolment."""

from __future__ import annotations

import base64
import plistlib
from collections.abc import Callable
from typing import Any

from tests.helpers.mdm_provider import Recorder, order
from tests.helpers.sandbox import serving

MD5_OF_11 = "bc6ace39-67e0-e5ea-ec88-a25c06b1c48b"


def test_nanomdm_gets_commands_under_an_id_that_retries_share(
    free_port: Callable[[], int],
) -> None:
    heard: list[tuple[str, str, dict[str, Any], str]] = []

    async def server(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = (await receive())["body"]
        auth = dict(scope["headers"])[b"authorization"].decode()
        heard.append((scope["method"], scope["path"], plistlib.loads(body), auth))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    profiles = {"7": {"identifier": "com.example", "payload": base64.b64encode(b"<p/>").decode()}}
    with serving(server, free_port()) as url:
        recorder = Recorder(url, "nano-key")
        pushed = [
            recorder.send(
                order("UDID/1", "push_profile", profile_id="7"), "nanomdm", profiles=profiles
            )
            for _ in range(2)
        ]
        recorder.send(order("U", "remove_profile", profile_id="7"), "nanomdm", profiles=profiles)
        recorder.send(order("U", "mdm_lock", pin="123456"), "nanomdm")
        unknown = recorder.send(order("U", "push_profile", profile_id="8"), "nanomdm")
        never = recorder.send(order("U", "mdm_push_apps"), "nanomdm")

    commands = [body["Command"] for _, _, body, _ in heard]
    assert heard[0][:2] == ("PUT", "/v1/enqueue/UDID/1")
    assert heard[0][3] == "Basic " + base64.b64encode(b"nanomdm:nano-key").decode()
    assert commands[0] == {"RequestType": "InstallProfile", "Payload": b"<p/>"}
    assert commands[2] == {"RequestType": "RemoveProfile", "Identifier": "com.example"}
    assert commands[3] == {"RequestType": "DeviceLock", "PIN": "123456"}
    assert heard[0][2]["CommandUUID"] == heard[1][2]["CommandUUID"]
    # md5 of "pgfleet:command:11", as fleet.mdm_command_uuid(11) has it.
    assert pushed[0].result["command_uuid"] == heard[0][2]["CommandUUID"]
    assert heard[0][2]["CommandUUID"] == MD5_OF_11
    assert (unknown.reason, never.reason) == ("invalid_payload", "unsupported")
    assert "123456" not in repr(recorder.calls)
