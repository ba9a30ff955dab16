-- What keeps the queue of each MDM true to the commands, the links and the integrations.

create or replace function fleet.tg_forget_mdm_commands()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (select 1 from old_rows as o where o.channel = 'mdm') then
    delete from fleet.mdm_work as w using old_rows as o where w.command_id = o.id and o.channel = 'mdm';
  end if;
  return null;
end;
$$;

comment on function fleet.tg_forget_mdm_commands() is
  'Take commands that are deleted off the queue. Definer: whoever may delete a command may not write the queue.';
revoke all on function fleet.tg_forget_mdm_commands() from public, anon, authenticated, service_role;

create or replace trigger device_commands_09_forget_mdm
  after delete on public.device_commands
  referencing old table as old_rows
  for each statement execute function fleet.tg_forget_mdm_commands();

create or replace function fleet.tg_reroute_linked()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_devices bigint[];
begin
  case tg_op
    when 'INSERT' then
      v_devices := array(select n.device_id from new_rows as n);
    when 'DELETE' then
      v_devices := array(select o.device_id from old_rows as o);
    else
      v_devices := array(
        select n.device_id
        from new_rows as n
        join old_rows as o on o.device_id = n.device_id and o.integration_id = n.integration_id
        where (o.left_at is null) <> (n.left_at is null)
      );
  end case;
  if v_devices <> '{}' then
    perform fleet.reroute_mdm(v_devices);
    perform fleet.forget_profiles(v_devices) where tg_op <> 'INSERT';
  end if;
  return null;
end;
$$;

comment on function fleet.tg_reroute_linked() is
  'A device came into an MDM or left it: what waits for it follows, and what it had from there is gone. Definer: whoever may write a link '
  'may not write the queue.';
revoke all on function fleet.tg_reroute_linked() from public, anon, authenticated, service_role;

create or replace trigger device_links_01_reroute_insert
  after insert on public.device_links
  referencing new table as new_rows
  for each statement execute function fleet.tg_reroute_linked();
create or replace trigger device_links_01_reroute_update
  after update on public.device_links
  referencing old table as old_rows new table as new_rows
  for each statement execute function fleet.tg_reroute_linked();
create or replace trigger device_links_01_reroute_delete
  after delete on public.device_links
  referencing old table as old_rows
  for each statement execute function fleet.tg_reroute_linked();

create or replace function fleet.tg_reroute_integration()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform fleet.reroute_mdm(array(
    select w.device_id
    from fleet.mdm_work as w
    join public.device_links as l on l.device_id = w.device_id and l.integration_id = new.id
  ));
  return null;
end;
$$;

comment on function fleet.tg_reroute_integration() is
  'An MDM was disabled, or works again: what waits for its devices follows. Definer: whoever may write an integration may not write the '
  'queue.';
revoke all on function fleet.tg_reroute_integration() from public, anon, authenticated, service_role;

create or replace trigger device_integrations_04_reroute
  after update of status on public.device_integrations
  for each row when (new.status is distinct from old.status)
  execute function fleet.tg_reroute_integration();
