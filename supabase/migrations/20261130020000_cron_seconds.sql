-- Generated from db/migrations/20261130020000_cron_seconds.sql by pgfleet db bundle; edit that file instead.
-- Cron with seconds follows gap and fold as five fields do. What was compiled before has no kind any more, and so is
-- compiled anew wherever it is read.
-- depends: 20261129210000_geo_triggers

update public.schedules as s
set recurrence = case
  when s.recurrence ->> 'kind' = 'union' then jsonb_set(
    s.recurrence, '{members}', (select jsonb_agg(m.member - 'kind') from jsonb_array_elements(s.recurrence -> 'members') as m (member))
  )
  else s.recurrence - 'kind'
end
where s.recurrence_type = 'cron'
  and s.status <> 'cancelled'
  and btrim(s.recurrence_config ->> 'cron_expression') ~ '^\S+(\s+\S+){5}$';
