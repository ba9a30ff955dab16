-- A small school to look at and to try things on: devices, a group, holidays, schedules, people, and profiles in every state.
-- The documentation's examples use it. Running it again changes nothing.
-- pgfleet demo seed, or psql "$DB_URL" -f db/seed/demo.sql, or supabase db push --include-seed.

do $$
declare
  v_owner uuid;
  v_is_first boolean;
  v_mdm bigint;
  v_ipads bigint[];
  v_sent bigint[];
begin
  if exists (select 1 from public.owners as o where o.name = 'Demo school') then
    raise notice 'the demo school is there already';
    return;
  end if;

  -- The school is ada's own, so that what she makes without naming an owner belongs to it.
  insert into public.owners (id, name) values ('ada00000-0000-4000-8000-000000000001', 'Demo school') returning id into v_owner;
  if fleet.setting('default_owner') = 'null' then
    perform fleet.set_setting('default_owner', to_jsonb(v_owner));
  end if;
  -- On the local platform they have accounts. Nobody can sign in as these on a hosted project.
  insert into public.owner_members (owner_id, user_id, permissions, email)
  values
    (v_owner, 'ada00000-0000-4000-8000-000000000001', '{view,operate,manage,destructive,admin}', 'ada@school.example'),
    (v_owner, 'be000000-0000-4000-8000-000000000002', '{view,operate}', 'ben@school.example'),
    (v_owner, 'e0e00000-0000-4000-8000-000000000003', '{view}', 'eve@school.example');

  -- Examples name devices 1 to 3 and group 1. In a database that has others already, these get the next numbers.
  v_is_first := not exists (select 1 from public.devices) and not exists (select 1 from public.device_groups);
  if v_is_first then
    perform setval(pg_get_serial_sequence('public.devices', 'id'), 1, false);
    perform setval(pg_get_serial_sequence('public.device_groups', 'id'), 1, false);
  end if;
  insert into public.devices (owner_id, hostname, platform, tags, timezone)
  select
    v_owner, format('pc-%s', to_char(n, 'FM0000')), 'windows',
    case n when 1 then '{lab,teacher}' else '{lab,student}' end::text[], 'Europe/Berlin'
  from generate_series(1, 3) as n
  order by n;
  insert into public.device_groups (owner_id, name, selector) values (v_owner, 'labs', '{"tags": ["lab"]}');
  with made as (
    insert into public.devices (owner_id, hostname, platform, tags)
    select v_owner, format('ipad-%s', to_char(n, 'FM0000')), 'ios', '{tablet}' from generate_series(1, 6) as n
    order by n
    returning id
  )
  select array_agg(m.id order by m.id) into v_ipads from made as m;

  perform public.create_blackout_calendar(
    'Holidays', '[{"starts_on": "2026-12-21", "ends_on": "2027-01-05", "summary": "Christmas"}]', p_owner_id => v_owner
  );
  perform public.create_schedule(jsonb_build_object(
    'owner_id', v_owner, 'name', 'Lock the labs', 'action_type', 'lock', 'selector', '{"tags": ["lab"]}'::jsonb,
    'recurrence_type', 'weekly', 'recurrence_config', '{"days_of_week": [0, 1, 2, 3, 4], "time": "18:30"}'::jsonb,
    'timezone', 'Europe/Berlin'
  ));
  perform public.create_schedule(jsonb_build_object(
    'owner_id', v_owner, 'name', 'Clean up', 'action_type', 'clear_cache', 'selector', '{"platform": ["windows"]}'::jsonb,
    'recurrence_type', 'cron', 'recurrence_config', '{"cron_expression": "0 3 1 * *"}'::jsonb
  ));

  select i.id into v_mdm
  from public.create_integration(jsonb_build_object(
    'owner_id', v_owner, 'name', 'Demo MDM', 'integration_type', 'simplemdm', 'settings', '{"syncEnabled": false}'::jsonb
  )) as i;
  insert into public.device_links (device_id, integration_id, owner_id, external_id)
  select u.id, v_mdm, v_owner, (4100 + u.nr)::text from unnest(v_ipads) with ordinality as u(id, nr);

  -- Three that came, by what the function would say of them.
  perform public.install_profile('12345', v_ipads[1], interval '30 minutes');
  perform public.install_profile('12345', v_ipads[2], interval '2 hours');
  perform public.install_profile('67890', v_ipads[3]);
  v_sent := fleet.take_mdm_sends(v_mdm, 3, clock_timestamp());
  perform fleet.worker_finish_mdm(c.id, c.attempt, 'completed') from public.device_commands as c where c.id = any (v_sent);

  -- There is no account behind it: what is due from now on waits, and what is to come is to come.
  perform public.pause_integration(v_mdm, 'demo data: there is no account behind it');
  perform public.install_profile('12345', v_ipads[4], interval '45 minutes');
  perform public.install_profile('67890', v_ipads[5], interval '1 hour', now() + interval '1 day');
end;
$$;
