-- A small school to look at: devices, a group, schedules, and profiles in every state. Running it again changes nothing.
-- psql "$DB_URL" -f db/seed/demo.sql, or supabase db push --include-seed.

do $$
declare
  v_owner uuid;
  v_mdm bigint;
  v_ipads bigint[];
  v_sent bigint[];
begin
  if exists (select 1 from public.owners as o where o.name = 'Demo school') then
    raise notice 'the demo school is there already';
    return;
  end if;

  insert into public.owners (name) values ('Demo school') returning id into v_owner;
  if fleet.setting('default_owner') = 'null' then
    perform fleet.set_setting('default_owner', to_jsonb(v_owner));
  end if;
  insert into public.devices (owner_id, hostname, platform, tags, timezone)
  select v_owner, format('lab-pc-%s', to_char(n, 'FM00')), 'windows', '{lab}', 'Europe/Berlin' from generate_series(1, 12) as n;
  insert into public.device_groups (owner_id, name, selector) values (v_owner, 'labs', '{"tags": ["lab"]}');
  with made as (
    insert into public.devices (owner_id, hostname, platform, tags)
    select v_owner, format('ipad-%s', to_char(n, 'FM00')), 'ios', '{student}' from generate_series(1, 6) as n
    returning id
  )
  select array_agg(m.id order by m.id) into v_ipads from made as m;

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
  select u.id, v_mdm, v_owner, (4100 + u.place)::text from unnest(v_ipads) with ordinality as u(id, place);

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
