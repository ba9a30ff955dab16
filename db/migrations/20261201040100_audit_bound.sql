-- The audit log has an end as well: what is older than the setting audit_days goes.

comment on table public.audit_log is
  'Who changed what, from what to what. Written by triggers, never changed, and kept when the row or its owner is gone: so there are '
  'no foreign keys. What is older than the setting audit_days is deleted.';

create index audit_log_at_idx on public.audit_log (at);
