-- The policies of a schedule that says nothing: every default in one place.

-- overlap: what happens to a device that has not finished the run before: it is skipped, gets the new one when it has finished (one
-- at most is kept waiting), gets it at once, or has the old one cancelled.
-- catchup: what happens to instants that passed while nothing ticked: none, the latest, or all of them; catchup_rate is runs a minute
-- meanwhile, null for all at once.
-- expires_after: null until the next due instant, at most 24 hours.
-- unknown_zone: in device time, whether devices without a zone go by UTC, by their owner's zone, or not at all (utc, owner, skip).
-- retry: a null backoff is the setting retry_backoff_seconds; only failures of the classes in "on" are tried again.
-- jitter: each device has a slot of its own within this time, the same at every run.
-- rollout: in groups, at a rate, with rules that stop it; null for everybody at once.
-- One constant: it is asked for at every run, and what is built anew costs more than all that is done with it.
create or replace function fleet.default_policies()
returns jsonb
language sql
immutable
parallel safe
return '{
  "overlap": "skip", "max_concurrent": 3,
  "catchup": "latest", "catchup_window": "1 hour", "catchup_limit": 10, "catchup_rate": null,
  "expires_after": null,
  "gap": "first_instant", "fold": "first", "unknown_zone": "owner",
  "retry": {
    "attempts": 3, "backoff": null, "max_backoff": "1 hour",
    "on": ["error", "timeout", "network", "rate_limited", "unavailable", "lease_expired"]
  },
  "jitter": null,
  "execution_window": null,
  "blackouts": [],
  "max_runs": null,
  "rollout": null,
  "pause_on_failure": null
}'::jsonb;

comment on function fleet.default_policies() is 'The policies of a schedule that says nothing.';
revoke all on function fleet.default_policies() from public, anon, authenticated, service_role;
grant execute on function fleet.default_policies() to authenticated, service_role;

create or replace function fleet.effective_policies(p_policies jsonb)
returns jsonb
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  -- plpgsql keeps its plans, in which the defaults are a constant.
  if p_policies = '{}' then
    return fleet.default_policies();
  end if;
  return fleet.default_policies()
    || p_policies
    || jsonb_build_object('retry', (fleet.default_policies() -> 'retry') || coalesce(p_policies -> 'retry', '{}'));
end;
$$;

comment on function fleet.effective_policies(jsonb) is 'What a schedule says, completed by the defaults.';
revoke all on function fleet.effective_policies(jsonb) from public, anon, authenticated, service_role;
grant execute on function fleet.effective_policies(jsonb) to authenticated, service_role;
