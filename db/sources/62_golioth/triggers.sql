-- What holds for Golioth integrations however a row is written.

create or replace function fleet.tg_check_golioth()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if tg_op = 'INSERT' then
    new.settings := fleet.golioth_defaults() || new.settings;
  end if;
  perform fleet.raise_problems('the integration', 'integration_invalid', array_agg(q))
  from fleet.golioth_problems(new.settings) as q;
  return new;
end;
$$;

comment on function fleet.tg_check_golioth() is
  'Complete and check the settings of a Golioth integration. Definer: whoever may write the table may not call what it checks with.';
revoke all on function fleet.tg_check_golioth() from public, anon, authenticated, service_role;

create or replace trigger device_integrations_03_check_golioth
  before insert or update of settings, integration_type on public.device_integrations
  for each row when (new.integration_type = 'golioth') execute function fleet.tg_check_golioth();

create or replace function fleet.tg_prepare_golioth()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into fleet.golioth_syncs (integration_id, owner_id) values (new.id, new.owner_id) on conflict do nothing;
  return null;
end;
$$;

comment on function fleet.tg_prepare_golioth() is
  'Each Golioth integration has its row that says how its pull stands. Definer: whoever may write the one may not write the other.';
revoke all on function fleet.tg_prepare_golioth() from public, anon, authenticated, service_role;

create or replace trigger device_integrations_04_prepare_golioth
  after insert or update of integration_type on public.device_integrations
  for each row when (new.integration_type = 'golioth') execute function fleet.tg_prepare_golioth();

create or replace function fleet.tg_note_renaming()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  update fleet.sync_bases as b set renamed_at = clock_timestamp() where b.device_id = new.id;
  return null;
end;
$$;

comment on function fleet.tg_note_renaming() is
  'Keep when a device was renamed here, for syncs where the newest name counts. Definer: whoever may rename may not write that.';
revoke all on function fleet.tg_note_renaming() from public, anon, authenticated, service_role;

create or replace trigger devices_62_note_renaming
  after update of hostname on public.devices
  for each row when (old.hostname is distinct from new.hostname) execute function fleet.tg_note_renaming();

select fleet.keep_audit('public.sync_conflicts', p_columns => '{keep}');

insert into fleet.golioth_syncs (integration_id, owner_id)
select i.id, i.owner_id from public.device_integrations as i where i.integration_type = 'golioth'
on conflict do nothing;
