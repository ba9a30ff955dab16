"""The guide for automatic syncs, block by block as it stands, on the whole local platform."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
from tests.helpers.sandbox import wait_until

pytestmark = pytest.mark.pg_cron

SECRETS = """
-- Create secrets table for cron to use
CREATE TABLE IF NOT EXISTS public.pg_cron_secrets (
  name TEXT PRIMARY KEY,
  secret TEXT NOT NULL,
  created_at TIMESTAMPTZ DEFAULT now(),
  updated_at TIMESTAMPTZ DEFAULT now()
);

-- Enable Row Level Security
ALTER TABLE public.pg_cron_secrets ENABLE ROW LEVEL SECURITY;

-- Allow service role to access secrets
DROP POLICY IF EXISTS "Service role can manage secrets" ON public.pg_cron_secrets;
CREATE POLICY "Service role can manage secrets"
  ON public.pg_cron_secrets
  FOR ALL
  TO service_role
  USING (true)
  WITH CHECK (true);

-- Insert the secrets
INSERT INTO public.pg_cron_secrets (name, secret)
VALUES
  ('project_url', '<project-url>'),
  ('service_role_key', '<service-role-key>')
ON CONFLICT (name)
DO UPDATE SET
  secret = EXCLUDED.secret,
  updated_at = now();

-- Verify
SELECT name, left(secret, 30) || '...' as secret_preview, created_at
FROM public.pg_cron_secrets;
"""

BODY = """
  SELECT net.http_post(
    url := (SELECT secret FROM public.pg_cron_secrets WHERE name = 'project_url')
           || '/functions/v1/auto-sync-cron',
    headers := jsonb_build_object(
      'Content-Type', 'application/json',
      'Authorization', 'Bearer ' || (SELECT secret FROM public.pg_cron_secrets WHERE name = 'service_role_key')
    ),
    body := jsonb_build_object(
      'time', now(),
      'source', 'pg_cron'
    )
  ) AS request_id;
"""  # noqa: E501

JOB = f"""
-- Enable pg_cron extension (required for scheduled jobs)
CREATE EXTENSION IF NOT EXISTS pg_cron;

-- Remove existing job if present (idempotent)
SELECT cron.unschedule('auto-sync-cron-job')
WHERE EXISTS (SELECT 1 FROM cron.job WHERE jobname = 'auto-sync-cron-job');

-- Create the cron job (runs every 5 minutes)
SELECT cron.schedule(
  'auto-sync-cron-job',           -- Job name
  '*/5 * * * *',                   -- Schedule: every 5 minutes
  $${BODY}$$
);

-- Verify the job was created
SELECT
  jobid,
  jobname,
  schedule,
  active,
  database
FROM cron.job
WHERE jobname = 'auto-sync-cron-job';
"""

RUNS = """
-- Check recent cron executions
SELECT
  runid,
  jobid,
  status,
  return_message,
  start_time,
  end_time
FROM cron.job_run_details
WHERE jobid = (SELECT jobid FROM cron.job WHERE jobname = 'auto-sync-cron-job')
ORDER BY start_time DESC
LIMIT 10;
"""

EXISTS = "SELECT * FROM cron.job WHERE jobname = 'auto-sync-cron-job';"

ACTIVE = """
-- Should show active = true
SELECT jobid, jobname, active FROM cron.job WHERE jobname = 'auto-sync-cron-job';
"""

ERRORS = """
SELECT * FROM cron.job_run_details
WHERE jobid = (SELECT jobid FROM cron.job WHERE jobname = 'auto-sync-cron-job')
ORDER BY start_time DESC
LIMIT 5;
"""

INTEGRATION = """
SELECT
  name,
  status,
  settings->>'syncEnabled' as sync_enabled,
  settings->>'syncIntervalSeconds' as interval,
  last_sync_at
FROM device_integrations
WHERE integration_type = 'golioth';
"""

CHANGE = f"""
-- Reschedule with new interval
SELECT cron.unschedule('auto-sync-cron-job');

SELECT cron.schedule(
  'auto-sync-cron-job',
  '*/10 * * * *',  -- Changed to 10 minutes
  $${BODY}$$  -- Same SQL as before
);
"""

DISABLE = """
-- Temporarily disable
SELECT cron.unschedule('auto-sync-cron-job');

-- Re-enable later by running the schedule command again
"""

PERFORMANCE = """
-- Average sync duration
SELECT
  AVG(EXTRACT(EPOCH FROM (end_time - start_time))) as avg_seconds,
  COUNT(*) as total_runs,
  COUNT(*) FILTER (WHERE status = 'succeeded') as successful,
  COUNT(*) FILTER (WHERE status = 'failed') as failed
FROM cron.job_run_details
WHERE jobid = (SELECT jobid FROM cron.job WHERE jobname = 'auto-sync-cron-job')
  AND start_time > now() - interval '24 hours';
"""


def run(conn: psycopg.Connection[Any], block: str) -> list[dict[str, Any]]:
    """Run a block as it is pasted, and give the rows of its last statement."""
    cursor = conn.execute(block.encode())
    while cursor.nextset():
        pass
    if cursor.description is None:
        return []
    names = [column.name for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


@pytest.fixture
def editor(stack: Any) -> Iterator[psycopg.Connection[Any]]:
    """Give the SQL editor of the platform, and leave it without the job."""
    with psycopg.connect(stack.settings.db_url, autocommit=True) as conn:
        yield conn
        conn.execute(
            "select cron.unschedule(jobid) from cron.job where jobname = 'auto-sync-cron-job'"
        )


def test_the_whole_guide_works_as_it_is_written(stack: Any, editor: Any) -> None:
    settings = stack.settings
    httpx.post(f"{settings.golioth_url}/control/reset")
    made = httpx.post(f"{settings.golioth_url}/control/devices", json={"count": 2}).json()
    device = made["data"][0]["id"]
    owner, name = uuid4(), f"golioth-{uuid4().hex[:6]}"
    editor.execute("insert into owners (id, name) values (%s, 'staging')", (owner,))
    spec = {
        "name": name,
        "integration_type": "golioth",
        "owner_id": str(owner),
        "settings": {"base_url": settings.golioth_url, "projectId": "acme-demo"},
    }
    (integration,) = editor.execute(
        "select id from create_integration(%s, %s)", (json.dumps(spec), settings.golioth_key)
    ).fetchone()

    keys = SECRETS.replace("<project-url>", settings.api_url)
    previews = run(editor, keys.replace("<service-role-key>", settings.service_role_key))
    assert {"project_url", "service_role_key"} <= {row["name"] for row in previews}

    (job,) = run(editor, JOB)
    assert (job["jobname"], job["schedule"], job["active"]) == (
        "auto-sync-cron-job",
        "*/5 * * * *",
        True,
    )
    report = {"points": [[device, "2026-02-15T10:00:00.123456Z", {"t": 1}, "/sensor"]]}
    httpx.post(f"{settings.golioth_url}/control/report", json=report)

    # Five minutes would take long: the same command, each minute.
    editor.execute("select cron.alter_job(%s, schedule := '* * * * *')", (job["jobid"],))
    wait_until(lambda: run(editor, RUNS), 90)

    def synced() -> list[dict[str, Any]]:
        rows = run(editor, INTEGRATION)
        return [row for row in rows if row["name"] == name and row["last_sync_at"]]

    (found,) = wait_until(synced, 30)
    assert run(editor, RUNS)[0]["status"] in ("succeeded", "running")
    assert (found["status"], found["sync_enabled"], found["interval"]) == ("active", "true", "300")
    log = editor.execute(
        "select activity_type, status, counts ->> 'devices' from integration_activity_log"
        " where integration_id = %s",
        (integration,),
    ).fetchall()
    assert ("sync_import", "completed", "2") in log
    assert len(run(editor, EXISTS)) == 1
    assert run(editor, ACTIVE)[0]["active"] is True
    assert run(editor, ERRORS)
    (performance,) = run(editor, PERFORMANCE)
    assert performance["total_runs"] >= 1 and performance["failed"] == 0

    run(editor, CHANGE)
    assert run(editor, EXISTS)[0]["schedule"] == "*/10 * * * *"
    # What every migrate does last brings nothing back that somebody took away.
    run(editor, DISABLE)
    editor.execute("select fleet.after_migrate()")
    assert run(editor, EXISTS) == []
    editor.execute("select delete_integration(%s)", (integration,))
